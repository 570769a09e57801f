"""Data sets of embeddings: vectors per sample in a file, with labels in another."""
