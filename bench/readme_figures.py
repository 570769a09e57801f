"""README's table of speed, from the committed results of the benches.

    python bench/readme_figures.py     # after a bench; `make bench` ends with it

Reads bench/results/<machine>/*.json and writes a line for each result of ``LINES`` between two markers of README.md. On
a CPU a line holds ratios alone, of calls timed in turns in one run; on a GPU the time of ours as well. Nothing is
shown of a row whose check failed, and nothing that no run has measured.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import RESULTS
from pages import README, put_between

BEGIN, END = "<!-- speed: bench/readme_figures.py -->", "<!-- end of speed -->"
HEAD = ["| what | takes | measured on |", "|---|---|---|"]


@dataclass(frozen=True)
class Line:
    """Calls of a bench's row, and what the table calls them. labels: of the row. others: call and name of each that
    ours is compared with. own: "" is the row's subject."""

    bench: str
    labels: dict[str, Any]
    what: str
    others: tuple[tuple[str, str], ...]
    own: str = ""


PEER = (("DivideMix", "the official DivideMix code"),)
EAGER = (("eager", "the same, not compiled"),)
SKLEARN = (("sklearn loop", "a loop of scikit-learn's fits, one a class"),)
FEEDS = (
    ("DataLoader Pillow", "a DataLoader with Pillow"),
    ("DataLoader torchvision", "one with torchvision's decoder"),
    ("a DALI reader a view", "a DALI reader for each view"),
)
VIEWS = ("2 weak", "2 weak + 2 strong")
LINES = (
    Line("peer", {"row": "epoch"}, "epoch of both networks, given partition", PEER),
    Line("peer", {"row": "score"}, "scores of all images, mixture included", PEER),
    Line("step", {"row": "step"}, "compiled training step", EAGER),
    Line("gmm", {"N": 50_000, "groups": 100, "start": "own"}, "mixtures of 50,000 losses in 100 classes", SKLEARN),
    Line("gmm", {"N": 1_000_000, "groups": 14, "start": "own"}, "mixtures of 1,000,000 losses in 14 classes", SKLEARN),
    *(
        Line("data", {"views": views}, f"photos to {views} views, {name}", FEEDS, own)
        for views in VIEWS
        for own, name in (("dali", "by DALI"), ("cached", "from the cache"))
    ),
)


def table(results: Path = RESULTS) -> list[str]:
    """The table in Markdown: every line of ``LINES`` on every machine that has measured it."""
    machines = sorted(path for path in results.iterdir() if path.is_dir())
    return [*HEAD, *(text for line in LINES for folder in machines for text in _rows(line, folder))]


def _rows(line: Line, folder: Path) -> Iterator[str]:
    path = folder / f"{line.bench}.json"
    if not path.is_file():
        return
    content = json.loads(path.read_text(encoding="ascii"))
    machine = content["machine"]
    for row in content["rows"]:
        if not row["check"]["passed"] or not line.labels.items() <= row["labels"].items():
            continue
        seconds = row["seconds"]
        own = seconds.get(line.own or row["subject"])
        others = [(name, seconds[call]) for call, name in line.others if call in seconds]
        if own is None or not others:  # written before there was this call
            continue
        absolute = f"{1e3 * own['median']:.3g} ms, " if machine["device"] == "cuda" else ""
        ratios = ", ".join(f"{other['median'] / own['median']:.3g} x less than {name}" for name, other in others)
        where = machine["name"] + ("" if absolute else f", {machine['cores']} cores")
        link = f"[{where}](bench/results/{folder.name}/{path.name})"
        yield f"| {line.what}{_size(row['labels'])} | {absolute}{ratios} | {link} |"


def _size(labels: dict[str, Any]) -> str:
    """The labels that say how large the work was, and in which precision."""
    told = [str(labels["network"])] if "network" in labels else []
    told += [f"{name} {labels[name]}" for name in ("width", "batch") if name in labels]
    told += [f"{labels[name]:,} {name}" for name in ("images", "photos") if name in labels]
    told += [str(labels["precision"])] if "precision" in labels else []
    told += ["compiled"] if labels.get("compile", "false") != "false" else []
    return f" ({', '.join(told)})" if told else ""


def main() -> int:
    """Run the command."""
    lines = table()
    print("\n".join(lines))
    put_between(BEGIN, END, lines)
    print(f"put into {README.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
