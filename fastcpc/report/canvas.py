"""Figures as SVG inside a page: one panel each, readable on a phone, in the page's own colours in light and dark."""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SIZE = (4.2, 2.7)  # inches of 72 points; drawn as wide as its column
# Stand-ins that no figure uses otherwise; the page puts its own colours in their place.
INK, FAINT, PAPER = "#010203", "#010204", "#010205"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")
_PAGE_COLOURS = {INK: "currentColor", FAINT: "var(--faint)", PAPER: "var(--card)"} | {
    colour: f"var(--s{number})" for number, colour in enumerate(SERIES, start=1)
}
_FILE_COLOURS = {INK: "#222222", FAINT: "#cccccc", PAPER: "#ffffff"} | dict(
    zip(SERIES, ("#2b6cb0", "#c2571a", "#2f855a", "#8b5cb8", "#b7791f", "#b83266"), strict=True)
)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # class names are text, dollars and all
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
}
_IDS = re.compile(r'(id="|url\(#|href="#)')
MOST_NAME = 18  # characters of a class name in a figure


@dataclass(frozen=True)
class Picture:
    """A figure of the page. title and caption are plain text; text says what is to be seen, for those who cannot."""

    key: str
    title: str
    caption: str
    text: str
    svg: Markup


def draw(
    key: str,
    title: str,
    caption: str,
    text: str,
    paint: Callable[[Axes], object],
    *,
    width: float = 1.0,
    height: float = 1.0,
) -> Picture:
    """Paint one panel. key: short and unique in the page. width, height: in units of SIZE."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": key}):
        figure = Figure(figsize=(SIZE[0] * width, SIZE[1] * height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        svg = _svg(figure)
    return Picture(key, title, caption, text, inline(svg, key, text))


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has the fonts, whatever this machine has
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return buffer.getvalue()


def inline(svg: str, key: str, text: str) -> Markup:
    """An SVG file's text as an element of a page: no header, ids of its own, the page's colours, a text alternative."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = _IDS.sub(rf"\1{key}-", body)
    for colour, replacement in _PAGE_COLOURS.items():
        body = body.replace(colour, replacement)
    end = body.index(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", body[:end])
    return Markup(f'{head} role="img" aria-label="{escape(text)}"{body[end:]}')


def save_file(paint: Callable[[Figure], object], width: float, height: float) -> str:
    """A figure of its own as the text of an SVG file, dark on white. width, height: in units of SIZE."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": "file"}):
        figure = Figure(figsize=(SIZE[0] * width, SIZE[1] * height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        svg = _svg(figure)
    for colour, replacement in _FILE_COLOURS.items():
        svg = svg.replace(colour, replacement)
    end = svg.index(">", svg.index("<svg")) + 1
    return f'{svg[:end]}\n <rect width="100%" height="100%" fill="#ffffff"/>{svg[end:]}'


def plain_name(name: str, most: int = MOST_NAME) -> str:
    """A name on one line without control characters, cut to ``most`` characters."""
    text = "".join(c if c.isprintable() else " " for c in name)
    return text if len(text) <= most else text[: most - 1] + "…"
