"""The table of speed in docs/performance.md, from the committed results of the benches.

    python bench/tables/speed_table.py     # after a bench; `make bench` ends with it

Reads bench/results/<machine>/*.json and writes one table per machine between two markers of the page, with a row for
each comparison of ``LINES``. A row shows a ratio of medians, both medians, the number of measurements, and the range
from the 20th to the 80th percentile. A bench row whose check failed is left out.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pages import DOCS, ROOT, put_between

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import RESULTS

PAGE = DOCS / "performance.md"
BEGIN, END = "<!-- speed: bench/tables/speed_table.py -->", "<!-- end of speed -->"
HEAD = ["| work | fastcpc is | file |", "|---|---|---|"]


@dataclass(frozen=True)
class Line:
    """A row of a bench's JSON and the compared calls in it.

    ``labels`` select the row. ``others`` are (call, name in the table) of the compared programs. ``own`` is the call of
    fastcpc, "" for the row's subject.
    """

    bench: str
    labels: dict[str, Any]
    what: str
    others: tuple[tuple[str, str], ...]
    own: str = ""


PEER = (("DivideMix", "the official DivideMix code"),)
AT_HAND = (("DivideMix, batches at hand", "the official DivideMix code without its loaders"),)
EAGER = (("eager", "the same step without compilation"),)
SKLEARN = (("sklearn loop", "a loop of scikit-learn fits, one per class"),)
LOADERS = (
    ("DataLoader Pillow", "a DataLoader with Pillow"),
    ("DataLoader torchvision", "a DataLoader with torchvision's decoder"),
    ("a DALI reader a view", "one DALI reader per view"),
)
VIEWS = ("2 weak", "2 weak + 2 strong")
LINES = (
    Line("peer", {"row": "epoch"}, "training epoch of both networks, given partition", PEER),
    Line("peer", {"row": "epoch"}, "compiled training epoch of both networks", PEER, "compile=default"),
    Line("peer_64", {"row": "epoch"}, "training epoch of both networks, given partition", AT_HAND),
    Line("peer", {"row": "score"}, "scoring pass of both networks with the mixture", PEER),
    Line("step", {"row": "step"}, "compiled training step", EAGER),
    # from a given start: with its own start, the time of scikit-learn changed fourfold between two runs
    Line("gmm", {"N": 50_000, "groups": 100, "start": "given"}, "mixtures of 50,000 losses in 100 classes", SKLEARN),
    Line(
        "gmm", {"N": 1_000_000, "groups": 14, "start": "given"}, "mixtures of 1,000,000 losses in 14 classes", SKLEARN
    ),
    *(
        Line("data", {"views": views}, f"{views} views {name}", LOADERS, own)
        for views in VIEWS
        for own, name in (("dali", "by DALI"), ("cached", "from the cache"))
    ),
)


def table(results: Path = RESULTS) -> list[str]:
    """Markdown: for each machine its name and the rows that it has measured."""
    lines: list[str] = []
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        rows = [row for line in LINES for row in _rows(line, folder)]
        if rows:
            name = rows[0][0]
            lines += [*([""] if lines else []), f"**{name}** (`bench/results/{folder.name}/`)", "", *HEAD]
            lines += [text for _, text in rows]
    return lines


def _rows(line: Line, folder: Path) -> Iterator[tuple[str, str]]:
    """(machine, row of the table) of each comparison."""
    path = folder / f"{line.bench}.json"
    if not path.is_file():
        return
    content = json.loads(path.read_text(encoding="ascii"))
    machine = content["machine"]
    name = machine["name"] + (f", {machine['cores']} cores" if machine["device"] == "cpu" else "")
    for row in content["rows"]:
        if not row["check"]["passed"] or not line.labels.items() <= row["labels"].items():
            continue
        own = row["seconds"].get(line.own or row["subject"])
        for call, other_name in line.others:
            other = row["seconds"].get(call)
            if own is not None and other is not None:  # an older file may lack a call
                yield (
                    name,
                    f"| {line.what}{_size(row['labels'])} | {_compared(own, other, other_name)} | `{path.name}` |",
                )


def _compared(own: dict[str, Any], other: dict[str, Any], name: str) -> str:
    """Such as: 1.8x faster than NAME (75 s vs 137 s, n = 3, 65-99 s vs 136-147 s)."""
    ratio = other["median"] / own["median"]
    words = f"{_digits(ratio)}x faster" if ratio >= 1 else f"{_digits(1 / ratio)}x slower"
    medians = f"{_time(own['median'])} vs {_time(other['median'])}"
    return f"{words} than {name} ({medians}, n = {own['n']}, {_range(own)} vs {_range(other)})"


def _digits(value: float) -> str:
    """A number with two significant digits, or as a whole number from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{float(f'{value:.2g}'):g}" if value >= 10 else f"{value:.1f}"


def _time(seconds: float) -> str:
    return f"{_digits(seconds)} s" if seconds >= 1 else f"{_digits(1e3 * seconds)} ms"


def _range(timing: dict[str, Any]) -> str:
    low, high = _time(timing["low"]), _time(timing["high"])
    return f"{low.split()[0]}-{high}" if low.split()[1] == high.split()[1] else f"{low} - {high}"


def _size(labels: dict[str, Any]) -> str:
    """The labels that say how large the work was, and in which precision."""
    parts = [str(labels["network"])] if "network" in labels else []
    parts += [f"{name} {labels[name]}" for name in ("width", "batch") if name in labels]
    parts += [f"{labels[name]:,} images" for name in ("images", "photos") if name in labels]
    parts += [str(labels["precision"])] if "precision" in labels else []
    parts += ["compiled"] if labels.get("compile", "false") != "false" else []
    return f" ({', '.join(parts)})" if parts else ""


def main() -> int:
    """Run the command."""
    lines = table()
    print("\n".join(lines))
    put_between(BEGIN, END, lines, PAGE)
    print(f"put into {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
