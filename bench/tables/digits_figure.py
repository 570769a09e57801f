"""The paper's Fig. 3 on digits: AUC of four cleaners over the epochs, three seeds, the same settings for all.

    python bench/tables/digits_figure.py                # 24 runs, two at a time; repeat to resume

It is `fastcpc-reproduce figure3 --scale small`, with the figure in docs/images, its values in
bench/results/digits_figure.json, and a table of the first and last cleaning in docs/experiments.md.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from digits_grid import arguments, trained
from pages import DOCS, ROOT, put_between

from fastcpc.report.paper.experiments import TABLE_CLEANERS
from fastcpc.report.paper.tables import as_json, figure, short_name
from fastcpc.report.results.run import Run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import this_machine

RESULT = ROOT / "bench" / "results" / "digits_figure.json"
FIGURE = DOCS / "images" / "figure3-digits.svg"
BEGIN, END = "<!-- digits figure: bench/tables/digits_figure.py -->", "<!-- end of digits figure -->"


def table(places: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: AUC at the first and at the last cleaning of an epoch, mean +- standard deviation over seeds."""
    lines = ["| | " + " | ".join(TABLE_CLEANERS) + " |", "|---" * (len(TABLE_CLEANERS) + 1) + "|"]
    for row in dict.fromkeys(place["row"] for place in places):
        curves = {place["cleaner"]: place["auc"] for place in places if place["row"] == row}
        for words, position in (("first cleaning", 0), ("last epoch", -1)):
            cells = []
            for cleaner in TABLE_CLEANERS:
                mean_E, std_E = (np.array(curves[cleaner][part], np.float64) for part in ("mean", "std"))
                epoch = np.flatnonzero(np.isfinite(mean_E))[position]
                cells.append(f"{mean_E[epoch]:.3f} +- {std_E[epoch]:.3f}")
            lines.append(f"| {short_name(row)}, {words} | " + " | ".join(cells) + " |")
    return lines


def environment(run: Run) -> dict[str, Any]:
    """What a run was trained with."""
    content = json.loads((run.path / "environment.json").read_bytes())
    assert isinstance(content, dict)
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = arguments(__doc__ or "").parse_args(argv)
    chosen, grid, results = trained("figure3", 0, options)
    content = json.loads(as_json(chosen, "small", grid.settings, results))
    lines = table(content["places"])
    print("\n".join(lines))
    trained_at = {environment(run)["commit"] for runs in results.values() for run in runs}
    head = {
        "machine": this_machine("cpu").line(),
        "runs_trained_at": sorted(trained_at),
        "command": "python bench/tables/digits_figure.py",
        "table": lines,
    }
    RESULT.write_text(json.dumps(head | content, indent=1) + "\n", encoding="utf-8")
    FIGURE.write_text(figure(chosen, results)[0], encoding="utf-8")
    put_between(BEGIN, END, lines, DOCS / "experiments.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
