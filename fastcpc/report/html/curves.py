"""What metrics.jsonl says, over epochs: accuracy, losses, sizes, both cleaners."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fastcpc.cleaner.registry import cleaners_of
from fastcpc.report.html.canvas import FAINT, INK, SERIES, ReportFigure, draw, plain_name
from fastcpc.report.html.comparison import Comparison, RunGroup
from fastcpc.report.results.run import Run

MOST_GROUPS = 18  # lines that a reader can distinguish
STAGES = ("score", "clean", "train", "eval")
_NETWORKS = ("network 1", "network 2")
CLEANER_TITLES = {"gmm": "mixture", "cpc": "prototypes"}  # others are shown by their names


def curves(run: Run) -> tuple[list[ReportFigure], list[str]]:
    """Figures over epochs, and a sentence for each that cannot be drawn."""
    if not run.metrics:
        return [], ["No epoch is finished yet: there are no curves."]
    figures = [_accuracy(run), _losses(run), _sizes(run), _learning_rate(run), _seconds(run)]
    missing = []
    for figure, sentence in (
        (_auc(run), _why_no_auc(run)),
        (_divergence(run), "KL divergence and agreement need both a mixture and prototypes (cleaner.kind=cpc_*)."),
        (_agreement(run), ""),
    ):
        if figure is not None:
            figures.append(figure)
        elif sentence:
            missing.append(sentence)
    return figures, missing


def series(run: Run, key: str, place: int | None = None) -> np.ndarray:
    """A number of each epoch's line, float64 (E,), NaN where there is none. place: 0 or 1 for one of a pair."""
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
    text = f"Test accuracy over {len(best)} epochs: first {_say(best[0])} %, last {_say(best[-1])} %, " + (
        f"best {_say(np.nanmax(best))} %." if np.isfinite(best).any() else "none measured."
    )
    return _lines(run, "accuracy", "Test accuracy", "Percent, top-1.", text, "%", shown)


def _losses(run: Run) -> ReportFigure:
    shown = {}
    for name in ("total", "labelled", "unlabelled", "penalty"):
        both = np.stack([series(run, f"loss_{name}", place) for place in (0, 1)])
        if np.nanmax(np.abs(np.where(np.isfinite(both), both, 0))) > 0:
            shown[name] = np.where((both == 0).all(0), np.nan, both.mean(0))  # a loss that an epoch has not
    text = "Training losses, mean of both networks: " + ", ".join(f"{k} {_say(v[-1])} last" for k, v in shown.items())
    caption = "Mean of both networks. In the warm-up the total is cross entropy on all labels."
    return _lines(run, "losses", "Training losses", caption, text + ".", "", shown)


def _sizes(run: Run) -> ReportFigure:
    total = num_divided(run)
    shown = {f"X of {name}": 100 * series(run, "labelled", i) / total for i, name in enumerate(_NETWORKS)}
    last = shown[f"X of {_NETWORKS[0]}"][-1]
    text = f"Share of labels held clean by the networks; at the end {_say(last)} % for network 1."
    caption = (
        f"Percent of the {total:,} labels of an epoch that are held clean (X); the rest is the unlabelled set (U)."
    )
    rate = run.labels.actual_rate

    def more(ax: Axes) -> None:
        if rate is not None:
            ax.axhline(100 * (1 - rate), color=INK, linewidth=0.8, linestyle=":", label="labels that are right")
        ax.set_ylim(0, 102)

    return _lines(run, "sizes", "Labelled and unlabelled", caption, text, "% in X", shown, more)


def num_divided(run: Run) -> int:
    """How many samples an epoch divides: all, or the pool that it draws."""
    train = run.config.train
    return run.num_samples if run.config.cleaner.scored == "all" else train.pool_batches * train.batch_size


def _learning_rate(run: Run) -> ReportFigure:
    values = series(run, "lr")
    text = f"Learning rate: {values[0]:g} first, {values[-1]:g} last."
    return _lines(
        run,
        "lr",
        "Learning rate",
        "Of both networks and of the prototypes.",
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

    def paint(ax: Axes) -> None:
        bottom = np.zeros(len(epochs))
        for (name, _), values, colour in zip(parts.items(), stacked, SERIES, strict=False):
            ax.fill_between(
                epochs, bottom, bottom + values, color=colour, alpha=0.75, linewidth=0, step="mid", label=name
            )
            bottom = bottom + values
        ax.set_xlabel("epoch")
        ax.set_ylabel("seconds")
        ax.set_ylim(0)
        ax.legend(loc="upper left", ncols=2)

    total = stacked.sum(1)
    text = f"Seconds by stage, {len(epochs)} epochs: " + ", ".join(
        f"{name} {seconds:.1f}" for name, seconds in zip(parts, total, strict=True)
    )
    return draw("seconds", "Time by stage", "Seconds of each epoch, stacked.", text + ".", paint)


def _auc(run: Run) -> ReportFigure | None:
    shown, painter = _of_cleaners(run, "auc"), auc_painter(run)
    if painter is None:
        return None
    text = "AUC of the cleaners, last epoch: " + ", ".join(f"{k} {_say(_last(v), 3)}" for k, v in shown.items()) + "."
    caption = "Area under the ROC curve of the clean probability; mean of both networks. 1 is best."
    return draw("auc", "How well the cleaners tell right from wrong labels", caption, text, painter)


def auc_painter(run: Run) -> Callable[[Axes], None] | None:
    """A painter of both cleaners' AUC over epochs, mean of both networks; None where it is not known."""
    shown = _of_cleaners(run, "auc")
    return _lines_painter(run, "AUC", shown) if shown else None


def _why_no_auc(run: Run) -> str:
    if run.labels.trusted_N is None:
        return "Trusted labels are not known, so the AUC of the cleaners, precision and recall cannot be said."
    if not cleaners_of(run.config.cleaner.kind):
        return "This run cleans no labels (cleaner.kind=none): there is no AUC."
    return "No epoch has cleaned labels yet, or all labels are right: there is no AUC."


def _divergence(run: Run) -> ReportFigure | None:
    shown = {name: series(run, "kl_gmm_cpc", i) for i, name in enumerate(_NETWORKS)}
    if not any(np.isfinite(values).any() for values in shown.values()):
        return None
    text = f"KL divergence between both cleaners, network 1: last {_say(_last(shown[_NETWORKS[0]]), 3)} nats."
    caption = (
        "KL divergence of the prototypes' clean probability q(z) from the mixture's q(z'), mean over samples, nats."
    )
    return _lines(run, "kl", "How far prototypes are from the mixture", caption, text, "nats", shown)


def _agreement(run: Run) -> ReportFigure | None:
    shown = {name: 100 * series(run, "agreement_gmm_cpc", i) for i, name in enumerate(_NETWORKS)}
    if not any(np.isfinite(values).any() for values in shown.values()):
        return None
    text = f"Share of labels that both cleaners judge alike, network 1: last {_say(_last(shown[_NETWORKS[0]]))} %."
    caption = "Percent of labels that mixture and prototypes both hold clean, or both not."
    return _lines(run, "agreement", "How often both cleaners agree", caption, text, "%", shown)


def _of_cleaners(run: Run, measure: str) -> dict[str, np.ndarray]:
    shown = {}
    metrics = dict.fromkeys(key for line in run.metrics for key in line if key.startswith(f"{measure}_"))
    for key in (metric.removeprefix(f"{measure}_") for metric in metrics):
        name = CLEANER_TITLES.get(key, key)
        pair = np.stack([series(run, f"{measure}_{key}", i) for i in (0, 1)])
        if np.isfinite(pair).any():
            shown[name] = pair.mean(0)
    return shown


def comparison_figures(comparison: Comparison) -> list[ReportFigure]:
    """Accuracy and AUC of each group over epochs, mean of its seeds; none where there are too many groups to tell."""
    if len(comparison.groups) > MOST_GROUPS:
        return []
    figures = []
    for key, title, unit, measure in (
        ("accuracy", "Test accuracy", "%", lambda run: series(run, "test_top1")),
        ("auc", "AUC of the cleaner that rules", "AUC", ruling_auc),
    ):
        shown = {group_name(group): mean_over_runs(group.runs, measure) for group in comparison.groups}
        shown = {name: values for name, values in shown.items() if np.isfinite(values).any()}
        if shown:
            last = ", ".join(f"{name}: {_say(_last(values), 3)}" for name, values in shown.items())
            text = f"{title} over epochs, mean over seeds; last: {last}."
            figures.append(
                draw(key, title, "Mean over the seeds of each group.", text, group_painter(shown, unit), height=1.3)
            )
    return figures


def group_name(group: RunGroup) -> str:
    """The settings by which a group differs, in a line."""
    return plain_name(", ".join(group.values.values()), 60) or group.config.cleaner.kind


def ruling_auc(run: Run) -> np.ndarray:
    """AUC by epoch of the cleaner that the run is named after, mean of both networks: (E,), NaN where not known."""
    cleaners = cleaners_of(run.config.cleaner.kind)
    name = f"auc_{cleaners[-1].name if cleaners else 'gmm'}"
    return np.asarray((series(run, name, 0) + series(run, name, 1)) / 2)


def mean_over_runs(runs: Sequence[Run], measure: Callable[[Run], np.ndarray]) -> np.ndarray:
    """A measure by epoch, mean of the runs as far as the shortest of them goes."""
    rows = [measure(run) for run in runs]
    return np.asarray(np.mean([row[: min(map(len, rows))] for row in rows], axis=0))


def group_painter(shown: dict[str, np.ndarray], unit: str) -> Callable[[Axes], None]:
    """A painter of one line a group over epochs, with the legend below it."""

    def paint(ax: Axes) -> None:
        for number, (name, values) in enumerate(shown.items()):
            colour, style = SERIES[number % len(SERIES)], ("-", "--", ":")[number // len(SERIES) % 3]
            ax.plot(range(len(values)), values, color=colour, linestyle=style, label=name)
        ax.set_xlabel("epoch")
        ax.set_ylabel(unit)
        ax.figure.legend(loc="outside lower center", fontsize=7)

    return paint


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
    """Lines over epochs; the epochs of warm-up are shaded."""
    return draw(key, title, caption, text, _lines_painter(run, unit, shown, more, legend=legend))


def _lines_painter(
    run: Run,
    unit: str,
    shown: dict[str, np.ndarray],
    more: Callable[[Axes], object] | None = None,
    *,
    legend: bool = True,
) -> Callable[[Axes], None]:
    epochs = _epochs(run)

    def paint(ax: Axes) -> None:
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

    return paint


def shade_warmup(ax: Axes, epochs: Sequence[int], warmup_epochs: int) -> None:
    """Mark the epochs before the first cleaning."""
    if warmup_epochs > 0 and epochs:
        ax.axvspan(-0.5, min(warmup_epochs, max(epochs) + 1) - 0.5, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
    ax.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")


def _say(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "not known"
