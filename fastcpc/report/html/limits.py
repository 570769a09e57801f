"""How much a page shows; without imports, so that --help can read it."""

MOST_CARDS = 200  # suspects
