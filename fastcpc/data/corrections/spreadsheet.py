"""Text cells that a spreadsheet does not evaluate, and their original text."""

# Spreadsheets evaluate cells that begin with these (OWASP, "CSV injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_text(text: str) -> str:
    """The text of a CSV cell: an apostrophe comes before text that a spreadsheet would evaluate."""
    return f"'{text}" if text.startswith(FORMULA) else text


def original_texts(cell: str) -> tuple[str, ...]:
    """The texts that a cell may come from: itself, and without the apostrophe of ``safe_text``."""
    return (cell, cell[1:]) if cell[:1] == "'" and cell[1:].startswith(FORMULA) else (cell,)
