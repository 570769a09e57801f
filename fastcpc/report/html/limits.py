"""Limits of a page, in a module without imports for --help."""

MOST_CARDS = 200  # suspects
