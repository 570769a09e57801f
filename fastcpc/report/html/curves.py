"""Figures over epochs from metrics.jsonl: accuracy, losses, set sizes, cleaners."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fastcpc.cleaner.registry import cleaner_title, cleaners_of
from fastcpc.engine.outputs.metric_keys import auc_key, pair_keys
from fastcpc.report.html.canvas import FAINT, INK, SERIES, ReportFigure, draw, plain_name
from fastcpc.report.html.comparison import Comparison, RunGroup
from fastcpc.report.results.run import Run

MOST_GROUPS = 18  # lines that a reader can distinguish
STAGES = ("score", "clean", "train", "eval")
_NETWORKS = ("network 1", "network 2")


def curves(run: Run) -> tuple[list[ReportFigure], list[str]]:
    """Figures over epochs, and a sentence for each that cannot be drawn."""
    if not run.metrics:
        return [], ["No epoch is finished yet, so there are no curves."]
    figures = [_accuracy(run), _losses(run), _sizes(run), _learning_rate(run), _seconds(run)]
    missing = []
    for figure, sentence in (
        (_auc(run), _why_no_auc(run)),
        (
            _divergence(run),
            "KL divergence and agreement need two cleaners (such as cleaner.kind=cpc_awr).",
        ),
        (_agreement(run), ""),
    ):
        if figure is not None:
            figures.append(figure)
        elif sentence:
            missing.append(sentence)
    return figures, missing


def series(run: Run, key: str, place: int | None = None) -> np.ndarray:
    """A value of each epoch's line, float64 (E,), NaN where unknown. place: 0 or 1 for one of a pair."""
    return np.array([_number(line.get(key), place) for line in run.metrics], np.float64)


def _number(value: Any, place: int | None) -> float:
    if place is not None:
        value = value[place] if isinstance(value, (list, tuple)) and len(value) > place else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def _epochs(run: Run) -> list[int]:
    return [line["epoch"] for line in run.metrics]


def _accuracy(run: Run) -> ReportFigure:
    shown = {
        "both networks": series(run, "test_top1"),
        "network 1": series(run, "net1_top1"),
        "network 2": series(run, "net2_top1"),
        "nearest prototype": series(run, "prototype_top1"),
    }
    best = shown["both networks"]
    text = f"Test accuracy over {len(best)} epochs: first {_shown(best[0])} %, last {_shown(best[-1])} %, " + (
        f"best {_shown(np.nanmax(best))} %." if np.isfinite(best).any() else "none measured."
    )
    return _lines(run, "accuracy", "Test accuracy", "Percent, top-1.", text, "%", shown)


def _losses(run: Run) -> ReportFigure:
    shown = {}
    for name in ("total", "labelled", "unlabelled", "penalty"):
        both = np.stack([series(run, f"loss_{name}", place) for place in (0, 1)])
        if np.nanmax(np.abs(np.where(np.isfinite(both), both, 0))) > 0:
            shown[name] = np.where((both == 0).all(0), np.nan, both.mean(0))  # 0: no such loss
    text = "Training losses, mean of both networks: " + ", ".join(f"{k} {_shown(v[-1])} last" for k, v in shown.items())
    caption = "Mean of both networks. During the warm-up the total is cross entropy on all labels."
    return _lines(run, "losses", "Training losses", caption, text + ".", "", shown)


def _sizes(run: Run) -> ReportFigure:
    total = num_divided(run)
    shown = {f"X of {name}": 100 * series(run, "labelled", i) / total for i, name in enumerate(_NETWORKS)}
    last = shown[f"X of {_NETWORKS[0]}"][-1]
    text = f"Share of labels predicted clean; at the end {_shown(last)} % for network 1."
    caption = (
        f"Percent of the {total:,} labels of an epoch that are predicted clean (X); the rest is the unlabelled set (U)."
    )
    rate = run.labels.actual_rate

    def more(ax: Axes) -> None:
        if rate is not None:
            ax.axhline(100 * (1 - rate), color=INK, linewidth=0.8, linestyle=":", label="correct labels")
        ax.set_ylim(0, 102)

    return _lines(run, "sizes", "Labelled and unlabelled", caption, text, "% in X", shown, more)


def num_divided(run: Run) -> int:
    """Number of samples that an epoch partitions: all, or its pool."""
    train = run.config.train
    return run.num_samples if run.config.cleaner.scored == "all" else train.pool_batches * train.batch_size


def _learning_rate(run: Run) -> ReportFigure:
    values = series(run, "lr")
    text = f"Learning rate: {values[0]:g} first, {values[-1]:g} last."
    return _lines(
        run,
        "lr",
        "Learning rate",
        "Both networks and prototypes.",
        text,
        "",
        {"learning rate": values},
        lambda ax: ax.set_ylim(0),
        legend=False,
    )


def _seconds(run: Run) -> ReportFigure:
    parts = {
        name: np.array([_number((line.get("seconds") or {}).get(name), None) for line in run.metrics])
        for name in STAGES
    }
    stacked = np.nan_to_num(np.stack(list(parts.values())))
    epochs = _epochs(run)

    def plot(ax: Axes) -> None:
        bottom = np.zeros(len(epochs))
        for (name, _), values, colour in zip(parts.items(), stacked, SERIES, strict=False):
            ax.fill_between(
                epochs, bottom, bottom + values, color=colour, alpha=0.75, linewidth=0, step="mid", label=name
            )
            bottom = bottom + values
        ax.set_xlabel("epoch")
        ax.set_ylabel("seconds")
        ax.set_ylim(0)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(parts))  # above the areas, which fill the axes

    total = stacked.sum(1)
    text = f"Seconds by stage, {len(epochs)} epochs: " + ", ".join(
        f"{name} {seconds:.1f}" for name, seconds in zip(parts, total, strict=True)
    )
    return draw("seconds", "Time by stage", "Seconds of each epoch, stacked.", text + ".", plot)


def _auc(run: Run) -> ReportFigure | None:
    shown, plot = _of_cleaners(run, "auc"), auc_plot(run)
    if plot is None:
        return None
    text = "AUC of the cleaners, last epoch: " + ", ".join(f"{k} {_shown(_last(v), 3)}" for k, v in shown.items()) + "."
    caption = "Area under the ROC curve of the clean probability, correct against wrong labels; mean of both networks."
    return draw("auc", "AUC of the cleaners", caption, text, plot)


def auc_plot(run: Run) -> Callable[[Axes], None] | None:
    """Plots the cleaners' AUC over epochs, mean of both networks; None where it is unknown."""
    shown = _of_cleaners(run, "auc")
    return _lines_plot(run, "AUC", shown) if shown else None


def _why_no_auc(run: Run) -> str:
    if run.labels.trusted_N is None:
        return "True labels are unknown, so there is no AUC, precision or recall of the cleaners."
    if not cleaners_of(run.config.cleaner.kind):
        return "This run has no cleaner (cleaner.kind=none), so there is no AUC."
    return "No epoch has a cleaning yet, or all labels are correct, so there is no AUC."


def _cleaner_pair(run: Run) -> tuple[str, str] | None:
    """Names of the last two cleaners of the run's cleaner.kind; None where there are fewer."""
    cleaners = [cleaner.name for cleaner in cleaners_of(run.config.cleaner.kind)]
    return (cleaners[-2], cleaners[-1]) if len(cleaners) > 1 else None


def _divergence(run: Run) -> ReportFigure | None:
    pair = _cleaner_pair(run)
    shown = _of_networks(run, pair_keys(*pair)[0]) if pair else {}
    if pair is None or not shown:
        return None
    text = f"KL divergence between both cleaners, network 1: last {_shown(_last(shown[_NETWORKS[0]]), 3)} nats."
    first, second = map(cleaner_title, pair)
    caption = f"KL(q || q') of clean probabilities q by the {first} and q' by the {second}; mean over samples, nats."
    return _lines(run, "kl", "KL divergence of the cleaners", caption, text, "nats", shown)


def _agreement(run: Run) -> ReportFigure | None:
    pair = _cleaner_pair(run)
    shown = {name: 100 * values for name, values in _of_networks(run, pair_keys(*pair)[1]).items()} if pair else {}
    if pair is None or not shown:
        return None
    text = f"Share of labels on which both cleaners agree, network 1: last {_shown(_last(shown[_NETWORKS[0]]))} %."
    first, second = map(cleaner_title, pair)
    caption = f"Percent of labels that {first} and {second} both predict clean, or both noisy."
    return _lines(run, "agreement", "Agreement of the cleaners", caption, text, "%", shown)


def _of_networks(run: Run, key: str) -> dict[str, np.ndarray]:
    """A metric of each network over the epochs; empty where no epoch has it."""
    shown = {name: series(run, key, place) for place, name in enumerate(_NETWORKS)}
    return shown if any(np.isfinite(values).any() for values in shown.values()) else {}


def _of_cleaners(run: Run, measure: str) -> dict[str, np.ndarray]:
    shown = {}
    metrics = dict.fromkeys(key for line in run.metrics for key in line if key.startswith(f"{measure}_"))
    for key in (metric.removeprefix(f"{measure}_") for metric in metrics):
        name = cleaner_title(key)
        pair = np.stack([series(run, f"{measure}_{key}", i) for i in (0, 1)])
        if np.isfinite(pair).any():
            shown[name] = pair.mean(0)
    return shown


def comparison_figures(comparison: Comparison) -> list[ReportFigure]:
    """Accuracy and AUC of each group over epochs, mean of its seeds; none above MOST_GROUPS groups."""
    if len(comparison.groups) > MOST_GROUPS:
        return []
    figures = []
    for key, title, unit, measure in (
        ("accuracy", "Test accuracy", "%", lambda run: series(run, "test_top1")),
        ("auc", "AUC of the active cleaner", "AUC", active_auc),
    ):
        shown = {group_name(group): mean_over_runs(group.runs, measure) for group in comparison.groups}
        shown = {name: values for name, values in shown.items() if np.isfinite(values).any()}
        if shown:
            last = ", ".join(f"{name}: {_shown(_last(values), 3)}" for name, values in shown.items())
            text = f"{title} over epochs, mean over seeds; last: {last}."
            figures.append(
                draw(key, title, "Mean over the seeds of each group.", text, group_plot(shown, unit), height=1.3)
            )
    return figures


def group_name(group: RunGroup) -> str:
    """The settings by which a group differs, as one line."""
    return plain_name(", ".join(group.values.values()), 60) or group.config.cleaner.kind


def active_auc(run: Run) -> np.ndarray:
    """AUC by epoch of the last cleaner of cleaner.kind, mean of both networks: (E,), NaN where unknown."""
    cleaners = cleaners_of(run.config.cleaner.kind)
    if not cleaners:
        return np.full(len(run.metrics), np.nan)
    name = auc_key(cleaners[-1].name)
    return np.asarray((series(run, name, 0) + series(run, name, 1)) / 2)


def mean_over_runs(runs: Sequence[Run], measure: Callable[[Run], np.ndarray]) -> np.ndarray:
    """A measure by epoch, mean of the runs, cut to the shortest run."""
    rows = [measure(run) for run in runs]
    return np.asarray(np.mean([row[: min(map(len, rows))] for row in rows], axis=0))


def group_plot(shown: dict[str, np.ndarray], unit: str) -> Callable[[Axes], None]:
    """Plots one line per group over epochs, with the legend below."""

    def plot(ax: Axes) -> None:
        for number, (name, values) in enumerate(shown.items()):
            colour, style = SERIES[number % len(SERIES)], ("-", "--", ":")[number // len(SERIES) % 3]
            ax.plot(range(len(values)), values, color=colour, linestyle=style, label=name)
        ax.set_xlabel("epoch")
        ax.set_ylabel(unit)
        ax.figure.legend(loc="outside lower center", fontsize=7)

    return plot


def _lines(
    run: Run,
    key: str,
    title: str,
    caption: str,
    text: str,
    unit: str,
    shown: dict[str, np.ndarray],
    more: Callable[[Axes], object] | None = None,
    *,
    legend: bool = True,
) -> ReportFigure:
    """Lines over epochs; the warm-up is shaded."""
    return draw(key, title, caption, text, _lines_plot(run, unit, shown, more, legend=legend))


def _lines_plot(
    run: Run,
    unit: str,
    shown: dict[str, np.ndarray],
    more: Callable[[Axes], object] | None = None,
    *,
    legend: bool = True,
) -> Callable[[Axes], None]:
    epochs = _epochs(run)

    def plot(ax: Axes) -> None:
        for (name, values), colour in zip(shown.items(), SERIES, strict=False):
            if np.isfinite(values).any():
                # a single epoch is a point
                ax.plot(
                    epochs, values, color=colour, label=name, marker="." if np.isfinite(values).sum() == 1 else None
                )
        shade_warmup(ax, epochs, run.config.train.warmup_epochs)
        if more is not None:
            more(ax)
        ax.set_xlabel("epoch")
        ax.set_ylabel(unit)
        if legend and ax.get_legend_handles_labels()[0]:
            ax.legend(loc="best")

    return plot


def shade_warmup(ax: Axes, epochs: Sequence[int], warmup_epochs: int) -> None:
    """Mark the epochs before the first cleaning."""
    if warmup_epochs > 0 and epochs:
        ax.axvspan(-0.5, min(warmup_epochs, max(epochs) + 1) - 0.5, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
    ax.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")


def _shown(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "unknown"
