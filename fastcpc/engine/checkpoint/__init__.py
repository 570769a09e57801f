"""Checkpoints: file format, storage, resuming, comparing settings."""
