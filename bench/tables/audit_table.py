"""The tables of the label audit in docs/experiments.md, and the plot of its cost, from the JSON of bench/audit.py.

    python bench/tables/audit_table.py bench/results/MACHINE/audit.json

Cells are means over the seeds that the file has. Where a cell has fewer than the most, the number of seeds follows.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from pages import DOCS, put_between

from fastcpc.report.html.canvas import SERIES, files

PAGE, FIGURE = DOCS / "experiments.md", DOCS / "images" / "audit-cost.svg"
BEGIN, END = "<!-- audit tables: bench/tables/audit_table.py -->", "<!-- end of audit tables -->"
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "clothing": "clothing"}
NOISE = ("none0", "sym0.03", "sym0.1", "sym0.2", "sym0.5", "sym0.8", "asym0.1", "asym0.4")
METHODS = {"ours": "fastcpc", "cleanlab": "cleanlab", "datalab": "Datalab", "knn": "kNN votes"}
Row = dict[str, Any]


def noise_name(noise: str) -> str:
    """sym0.03 -> "sym 3 %"; none0 -> "0 %"."""
    kind, rate = noise.rstrip("0123456789."), float(noise.lstrip("abcdefghijklmnopqrstuvwxyz"))
    return f"{kind} {100 * rate:g} %" if kind != "none" else "0 %"


def places_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Data set and noise of the lines, in their order."""
    places = {(row["data"], row["noise"]) for row in rows}
    return sorted(places, key=lambda place: (list(DATA).index(place[0]), NOISE.index(place[1])))


def table(rows: Sequence[Row], columns: Sequence[str], cell: Callable[[list[Row]], str], noisy: bool) -> list[str]:
    """Markdown: a line per data set and noise, a column per method. noisy: leave out the lines without wrong labels."""
    lines = ["| | " + " | ".join(METHODS[name] for name in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for data, noise in places_of(rows):
        if noisy and noise == "none0":
            continue
        cells = [
            [row for row in rows if (row["data"], row["noise"], row["method"]) == (data, noise, name)]
            for name in columns
        ]
        most = max(map(len, cells))
        texts = [
            (cell(part) + (f" (n = {len(part)})" if len(part) < most else "")) if part else "not measured"
            for part in cells
        ]
        lines.append(f"| {DATA[data]}, {noise_name(noise)} | " + " | ".join(texts) + " |")
    return lines


def mean(part: Sequence[Row], key: str) -> float:
    """Mean of a figure over seeds; NaN without one."""
    return float(np.mean([row.get(key, np.nan) for row in part]))


def ranking(part: list[Row]) -> str:
    """Average precision and F1."""
    return f"{mean(part, 'average_precision'):.3f} / {mean(part, 'f1'):.3f}"


def cost(part: list[Row]) -> str:
    """Seconds of CPU time, and test accuracy where the method has a classifier."""
    accuracy = mean(part, "accuracy")
    return f"{mean(part, 'cpu_seconds'):.0f} s" + (f" / {100 * accuracy:.1f} %" if np.isfinite(accuracy) else "")


def estimates(rows: Sequence[Row]) -> list[str]:
    """Markdown: the true and the estimated share of wrong labels, intervals with the truth, suspects, evidence."""
    lines = [
        "| | wrong | estimated, per seed | truth in the interval | suspects | evidence |",
        "|---|---|---|---|---|---|",
    ]
    for data, noise in places_of(rows):
        part = [row for row in rows if (row["data"], row["noise"]) == (data, noise)]
        inside = sum(row["low"] <= row["noise_rate"] <= row["high"] for row in part)
        found = sum(bool(row["has_evidence"]) for row in part)
        rates = ", ".join(f"{100 * row['estimated_rate']:.1f}" for row in part)
        lines.append(
            f"| {DATA[data]}, {noise_name(noise)} | {100 * mean(part, 'noise_rate'):.1f} % | {rates} % | "
            f"{inside} of {len(part)} | {100 * mean(part, 'suspects'):.1f} % | {found} of {len(part)} |"
        )
    return lines


def plot_cost(scaling: Sequence[Row], sheet: Figure) -> None:
    """CPU seconds and peak memory over the number of samples, both axes logarithmic."""
    panels = sheet.subplots(1, 2)
    for ax, key, label, colour in zip(
        panels, ("cpu_seconds", "peak_mib"), ("CPU seconds", "peak MiB"), SERIES, strict=False
    ):
        ax.loglog([row["n"] for row in scaling], [row[key] for row in scaling], "o-", color=colour)
        for axis in (ax.xaxis, ax.yaxis):  # the default writes powers in mathtext, which figures here do not parse
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("samples")
        ax.set_ylabel(label)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    content = json.loads(parser.parse_args(argv).json.read_text(encoding="utf-8"))
    rows, scaling = content["rows"], content["scaling"]
    columns = [name for name in METHODS if any(row["method"] == name for row in rows)]
    ours = [row for row in rows if row["method"] == "ours"]
    lines = ["Average precision / F1 of the suspects:", "", *table(rows, columns, ranking, noisy=True), ""]
    lines += ["Estimates of `audit`:", "", *estimates(ours), ""]
    lines += ["CPU time / test accuracy:", "", *table(rows, columns, cost, noisy=False)]
    if scaling:
        lines += ["", "Cost over the number of samples (10 classes, synthetic, float16 in a memory map):", ""]
        lines += ["| samples | dimensions | CPU seconds | peak MiB | F1 |", "|---|---|---|---|---|"]
        lines += [
            f"| {r['n']:,} | {r['dim']} | {r['cpu_seconds']:.0f} | {r['peak_mib']:,} | {r['f1']:.3f} |" for r in scaling
        ]
        FIGURE.write_text(files(lambda sheet: plot_cost(scaling, sheet), width=2.0, height=1.0)[0], encoding="utf-8")
        lines += ["", f"![CPU seconds and peak memory of an audit over the number of samples](images/{FIGURE.name})"]
    print("\n".join(lines))
    put_between(BEGIN, END, lines, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
