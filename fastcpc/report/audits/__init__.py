"""Audits of given labels from frozen embeddings: the run folder, and what is printed and shown of it."""
