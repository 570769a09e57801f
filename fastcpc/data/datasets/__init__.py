"""Readers of the data sets: files, classes, given and true labels."""
