"""Data sets, label noise, views of images, and the order of samples."""
