"""Accuracy over what training has cost: FLOPs and seconds. Accuracy of several runs at equal FLOPs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from fastcpc.report.html.canvas import SERIES, ReportFigure, draw
from fastcpc.report.html.comparison import Comparison
from fastcpc.report.html.curves import MOST_GROUPS, group_name, series
from fastcpc.report.results.run import Run


def seconds_so_far(run: Run) -> np.ndarray:
    """Seconds from the beginning to the end of each epoch, (E,), NaN where unknown."""
    each = [(line.get("seconds") or {}).get("total") for line in run.metrics]
    return np.cumsum([np.nan if value is None else float(value) for value in each])


def cost_figures(run: Run) -> tuple[list[ReportFigure], list[str]]:
    """Test accuracy over training FLOPs and over seconds, and a sentence where FLOPs are unknown."""
    accuracy = series(run, "test_top1")
    figures, missing = [], []
    flops, seconds = series(run, "training_flops"), seconds_so_far(run)
    if np.isfinite(flops).any():
        caption = "FLOPs of both networks in training and scoring: convolutions and matrix products. Percent, top-1."
        figures.append(_over("flops", "Accuracy over FLOPs", caption, "FLOPs", flops, accuracy))
    else:
        missing.append("This run has no count of FLOPs, so there is no accuracy over FLOPs.")
    if np.isfinite(seconds).any():
        caption = "Seconds of scoring, cleaning, training and evaluation. Percent, top-1."
        figures.append(_over("cost-seconds", "Accuracy over seconds", caption, "seconds", seconds, accuracy))
    return figures, missing


def _over(key: str, title: str, caption: str, unit: str, cost: np.ndarray, accuracy: np.ndarray) -> ReportFigure:
    def plot(ax: Axes) -> None:
        ax.plot(cost, accuracy, color=SERIES[0])
        ax.set_xlim(0)
        ax.set_xlabel(unit)
        ax.set_ylabel("%")

    known = np.isfinite(cost) & np.isfinite(accuracy)
    last = f"{accuracy[known][-1]:.1f} % after {cost[known][-1]:.3g} {unit}" if known.any() else "none measured"
    return draw(key, title, caption, f"{title}: {last}.", plot)


def flops_figure(comparison: Comparison) -> ReportFigure | None:
    """Test accuracy of each run over its FLOPs, a colour per group; None where no run has a count."""
    groups = [
        (group_name(group), [run for run in group.runs if np.isfinite(series(run, "training_flops")).any()])
        for group in comparison.groups
    ]
    groups = [(name, runs) for name, runs in groups if runs]
    if not groups or len(groups) > MOST_GROUPS:
        return None

    def plot(ax: Axes) -> None:
        for number, (name, runs) in enumerate(groups):
            _group_lines(ax, name, runs, SERIES[number % len(SERIES)], ("-", "--", ":")[number // len(SERIES) % 3])
        ax.set_xlim(0)
        ax.set_xlabel("FLOPs")
        ax.set_ylabel("%")
        ax.figure.legend(loc="outside lower center", fontsize=7)

    title = "Test accuracy over FLOPs"
    return draw("flops", title, "A line per run.", f"{title} of {len(groups)} groups.", plot, height=1.3)


def _group_lines(ax: Axes, name: str, runs: Sequence[Run], colour: str, style: str) -> None:
    for number, run in enumerate(runs):
        label = name if number == 0 else None
        ax.plot(series(run, "training_flops"), series(run, "test_top1"), color=colour, linestyle=style, label=label)
