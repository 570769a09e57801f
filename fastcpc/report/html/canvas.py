"""Draw matplotlib figures as inline SVG in the page's colours (light and dark), or as files."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import get_named_colors_mapping
from matplotlib.figure import Figure
from numpy.typing import NDArray

SIZE = (4.2, 2.7)  # inches of 72 points; a page scales it to its column
DPI = 110  # of figures as pixels
# Names of colours. Pages and files map them to different colours.
INK, FAINT, PAPER = "fastcpc:ink", "fastcpc:faint", "fastcpc:paper"
SERIES = tuple(f"fastcpc:s{number}" for number in range(1, 7))
_NAMES = (INK, FAINT, PAPER, *SERIES)
# placeholders that no figure uses otherwise; ``inline`` replaces them by the page's colours
_PLACEHOLDERS = {name: f"#01020{number}" for number, name in enumerate(_NAMES, start=1)}
_PAGE_COLOURS = {INK: "currentColor", FAINT: "var(--faint)", PAPER: "var(--card)"} | {
    name: f"var(--s{number})" for number, name in enumerate(SERIES, start=1)
}
_FILE_COLOURS = dict(
    zip(
        _NAMES,
        ("#222222", "#cccccc", "#ffffff", "#2b6cb0", "#c2571a", "#2f855a", "#8b5cb8", "#b7791f", "#b83266"),
        strict=True,
    )
)


def _use(colours: dict[str, str]) -> None:
    for name, colour in colours.items():
        get_named_colors_mapping()[name] = colour  # one by one: update() does not clear matplotlib's cache


_use(_PLACEHOLDERS)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # class names may contain dollar signs
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
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_IDS = re.compile(r'(id="|url\(#|href="#)')
MOST_NAME = 18  # characters of a class name in a figure


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page. title, caption: plain text. text: description for screen readers."""

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
    plot: Callable[[Axes], object],
    *,
    width: float = 1.0,
    height: float = 1.0,
) -> ReportFigure:
    """Draw one panel. key: short and unique in the page. width, height: in units of SIZE."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": key}):
        figure = Figure(figsize=(SIZE[0] * width, SIZE[1] * height), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure.add_subplot())
        svg = _svg(figure)
    return ReportFigure(key, title, caption, text, inline(svg, key, text))


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser may have fonts that this machine lacks
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    return buffer.getvalue()


def inline(svg: str, key: str, text: str) -> Markup:
    """An SVG file as an element of a page: no header, unique ids, the page's colours, a text alternative."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = _IDS.sub(rf"\1{key}-", body)
    for name, replacement in _PAGE_COLOURS.items():
        body = body.replace(_PLACEHOLDERS[name], replacement)
    end = body.index(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", body[:end])
    return Markup(f'{head} role="img" aria-label="{escape(text)}"{body[end:]}')


def files(plot: Callable[[Figure], object], *, width: float, height: float) -> tuple[str, bytes]:
    """A figure as files, dark on white: the text of an SVG file and the bytes of a PNG file.

    width, height: in units of SIZE.
    """
    png, svg = io.BytesIO(), io.StringIO()
    with _own_figure(plot, width, height) as figure:
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata=_NO_METADATA)
    return svg.getvalue(), png.getvalue()


def pixels(plot: Callable[[Figure], object], *, width: float, height: float) -> NDArray[np.uint8]:
    """A figure, dark on white, as pixels: uint8 (H, W, 3)."""
    with _own_figure(plot, width, height) as figure:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@contextmanager
def _own_figure(plot: Callable[[Figure], object], width: float, height: float) -> Iterator[Figure]:
    _use(_FILE_COLOURS)
    try:
        with matplotlib.rc_context(_STYLE | {"svg.hashsalt": "file", "axes.titlesize": 9}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # letters of class names that no font here has
            figure = Figure(figsize=(SIZE[0] * width, SIZE[1] * height), dpi=DPI, layout="constrained", facecolor=PAPER)
            FigureCanvasAgg(figure)
            plot(figure)
            yield figure
    finally:
        _use(_PLACEHOLDERS)


def plain_name(name: str, most: int = MOST_NAME) -> str:
    """A name on one line without control characters, cut to ``most`` characters."""
    text = "".join(c if c.isprintable() else " " for c in name)
    return text if len(text) <= most else text[: most - 1] + "…"
