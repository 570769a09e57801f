"""The paper's Fig. 3 on digits: AUC of four cleaners over the epochs, three seeds, the same settings for all.

    python bench/digits_figure.py                # 24 runs, two at a time; stopped, it goes on where it stood
It is `fastcpc-reproduce figure3 --scale small`, with the picture in docs/images, every number of it in
bench/results/digits_figure.json, and a table of its first and last cleaning in docs/results.md.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from digits_table import ROOT, put_between
from harness import this_machine

from fastcpc.cli.reproduce import collect, grid_of
from fastcpc.report.experiments import CLEANERS, experiment
from fastcpc.report.grid import train_missing
from fastcpc.report.reproduce import as_json, figure, short_name
from fastcpc.report.run import Run

RESULT = ROOT / "bench" / "results" / "digits_figure.json"
PICTURE = ROOT / "docs" / "images" / "figure3-digits.svg"
BEGIN, END = "<!-- digits figure: bench/digits_figure.py -->", "<!-- end of digits figure -->"


def table(places: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: AUC at the first and at the last cleaning of an epoch, mean +- standard deviation over seeds."""
    lines = ["| | " + " | ".join(CLEANERS) + " |", "|---" * (len(CLEANERS) + 1) + "|"]
    for row in dict.fromkeys(place["row"] for place in places):
        curves = {place["cleaner"]: place["auc"] for place in places if place["row"] == row}
        for words, position in (("first cleaning", 0), ("last epoch", -1)):
            cells = []
            for cleaner in CLEANERS:
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce", help="where the runs are kept")
    options = parser.parse_args(argv)
    chosen, grid = experiment("figure3", "small"), grid_of("small", options.out, ROOT / "configs")
    cells = [cell for place in chosen.places for cell in place.cells(chosen.seeds)]
    signum = train_missing(grid, cells, options.jobs, lambda line: print(line, flush=True))
    if signum:
        return 128 + signum
    results = collect(chosen, grid, chosen.seeds)
    content = json.loads(as_json(chosen, "small", grid.settings, results))
    lines = table(content["places"])
    print("\n".join(lines))
    trained = {environment(run)["commit"] for runs in results.values() for run in runs}
    head = {
        "machine": this_machine("cpu").line(),
        "runs_trained_at": sorted(trained),
        "command": "python bench/digits_figure.py",
        "table": lines,
    }
    RESULT.write_text(json.dumps(head | content, indent=1) + "\n", encoding="utf-8")
    PICTURE.write_text(figure(chosen, results)[0], encoding="utf-8")
    put_between(BEGIN, END, lines, ROOT / "docs" / "results.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
