"""Embedding of the images of a folder or a list: fastcpc-embed."""
