"""Loaders turn sample indices into batches of augmented views."""
