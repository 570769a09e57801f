"""Data sets of image files: where each keeps its lists, labels and classes, and what is wrong with a copy of it."""
