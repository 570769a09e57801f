"""Curves of the CIFAR runs: accuracy over training FLOPs, and AUC of the cleaners over epochs (the paper's Fig. 3)."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastcpc.report.html.canvas import SERIES, files

# place of its colour; a run that continues plain training may share one with a shorter run
CLEANERS = {
    "cpc_awr": 0,
    "gmm_agn": 1,
    "none": 2,
    "none+cpc_awr": 3,
    "none+gmm_agn": 1,
    "none+none": 2,
    "none26": 4,
    "none26+none": 4,
    "none26+cpc_awr": 5,
    "none26+gmm_agn": 1,
    "none10": 2,
    "none10+cpc_awr": 0,
    "none10+cpc_awr_mlp": 3,
    "none10+cpc_agn_mlp": 3,
    "none10+gmm_agn": 1,
    "none10+none": 4,
}
NAMES = {"auc_gmm": "mixture", "auc_cpc": "prototypes"}


def svg(records: Sequence[dict[str, Any]]) -> str:
    """The figure as SVG: a row of two panels per noise and number of channels, a line per run."""
    groups = list(dict.fromkeys(_group(record) for record in records))

    def plot(sheet: Figure) -> None:
        for (left, right), group in zip(sheet.subplots(len(groups), 2, squeeze=False), groups, strict=True):
            runs = [record for record in records if _group(record) == group]
            _accuracy(left, runs, group)
            _auc(right, runs, group)

    return files(plot, width=2.0, height=1.15 * len(groups))[0]


def _group(record: dict[str, Any]) -> str:
    return f"{record['name'].split('-')[0]}, {channels(record)} channels"


def channels(record: dict[str, Any]) -> int:
    """The width of the network of a run, by its name: NOISE-CLEANER-SEED or NOISE-CLEANER-SEED-wWIDTH."""
    _, _, width = record["name"].partition("-w")
    return int(width or 24)


def _cleaner(record: dict[str, Any]) -> str:
    return str(record["name"].split("-")[1])


def _accuracy(ax: Axes, runs: Sequence[dict[str, Any]], group: str) -> None:
    for run in runs:
        flops = [value / 1e12 for value in run["curves"]["training_flops"]]
        ax.plot(flops, run["curves"]["test_top1"], color=SERIES[CLEANERS[_cleaner(run)]], label=_cleaner(run))
    ax.set(title=f"{group}: test accuracy", xlabel="training TFLOP", ylabel="top-1, %")
    ax.legend(loc="best")


def _auc(ax: Axes, runs: Sequence[dict[str, Any]], group: str) -> None:
    for run in runs:
        for key, dashes in (("auc_gmm", "--"), ("auc_cpc", "-")):
            first = run["epochs"] - len(run["curves"][key])  # of a run that continues another one
            points = [
                (epoch, sum(both) / 2) for epoch, both in enumerate(run["curves"][key], first) if both is not None
            ]
            if points:
                colour = SERIES[CLEANERS[_cleaner(run)]]
                ax.plot(*zip(*points, strict=True), dashes, color=colour, label=f"{_cleaner(run)}: {NAMES[key]}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(title=f"{group}: AUC, correct against wrong labels", xlabel="epoch", ylabel="AUC")
    if ax.lines:
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.09 * len(ax.lines) * (high - low), high)  # room for the legend below the lines
        ax.legend(loc="lower right")
