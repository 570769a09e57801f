"""Data sets, label noise, views of images, and the order in which they are served."""
