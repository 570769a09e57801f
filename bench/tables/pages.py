"""Pages of the documentation that hold tables and figures written by the benches."""

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"


def put_between(begin: str, end: str, lines: Sequence[str], page: Path) -> None:
    """Replace the text between two markers of a page."""
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    page.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + tail, encoding="utf-8")
