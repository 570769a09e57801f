"""Corrections of given labels: what a reviewer decided, read from a file, and applied to a data set."""
