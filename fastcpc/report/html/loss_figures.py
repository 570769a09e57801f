"""Figures of the losses: histograms with their mixtures, densities and tests per class (CPC, Fig. 1)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from fastcpc.arrays import Bools, Floats, Ints
from fastcpc.cleaner.metrics import class_ks_pvalues
from fastcpc.engine.outputs.score_file import LossMixture, ScoreArrays
from fastcpc.report.html.canvas import INK, SERIES, ReportFigure, draw, plain_name
from fastcpc.report.results.run import Run

BINS = 40
MOST_CLASSES = 100  # classes with a panel of their own
SMALL = 0.5
SIGNIFICANT = 0.05


def loss_figures(run: Run, first: ScoreArrays | None, last: ScoreArrays | None) -> list[ReportFigure]:
    """Losses of all samples with their mixture, at the first and at the latest cleaning; network 1."""
    figures = []
    if first is not None and last is not None and first.epoch != last.epoch:
        figures.append(_of_all(run, first, "hist-first", "Losses after the warm-up"))
    if last is not None:
        figures.append(_of_all(run, last, "hist-last", f"Losses {cleaning_time(run, last)}"))
    return [figure for figure in figures if figure is not None]


def cleaning_time(run: Run, scores: ScoreArrays) -> str:
    """The time of a cleaning as text."""
    return "at the end" if scores.epoch >= run.config.train.epochs else f"before epoch {scores.epoch}"


def class_panels(run: Run, scores: ScoreArrays | None) -> list[ReportFigure]:
    """Losses and mixture of each class, in the order of ids, at most MOST_CLASSES."""
    values_N = scores.values(0) if scores is not None else None
    if scores is None or values_N is None:
        return []
    figures = []
    for label, name in enumerate(run.class_names[:MOST_CLASSES]):
        own_N = run.labels.given_N == label
        mixture = scores.mixture(0, label)
        fit = "no mixture could be fitted" if mixture is None else _in_words(mixture)
        text = f"Losses of the {int(own_N.sum())} samples labelled {plain_name(name)}: {fit}."
        figures.append(
            draw(
                f"hist-class-{label}",
                plain_name(name, 40),
                f"{int(own_N.sum()):,} labels",
                text,
                _histogram(values_N[own_N], _wrong(run, own_N), mixture, small=True),
                width=SMALL,
                height=0.56,
            )
        )
    return figures


def _of_all(run: Run, scores: ScoreArrays, key: str, title: str) -> ReportFigure | None:
    values_N, plot = scores.values(0), all_losses_plot(run, scores)
    if values_N is None or plot is None:
        return None
    mixture = scores.mixture(0)
    fit = "no mixture could be fitted" if mixture is None else _in_words(mixture)
    text = f"Histogram of {len(values_N)} normalised losses of network 1; {fit}."
    caption = "Normalised cross entropy with the given label, network 1, and the mixture of all samples."
    return draw(key, title, caption, text, plot)


def all_losses_plot(run: Run, scores: ScoreArrays) -> Callable[[Axes], None] | None:
    """Plots the losses of all samples with their mixture, network 1; None where losses are NaN or inf."""
    values_N = scores.values(0)
    if values_N is None:
        return None
    everything_N = np.ones(len(values_N), np.bool_)
    return _histogram(values_N, _wrong(run, everything_N), scores.mixture(0), small=False)


def _wrong(run: Run, own_N: Bools) -> Bools | None:
    trusted_N = run.labels.trusted_N
    if trusted_N is None or (trusted_N[own_N] < 0).any():
        return None  # bars cannot be split where some true labels are unknown
    return np.asarray((trusted_N != run.labels.given_N)[own_N])


def _in_words(mixture: LossMixture) -> str:
    (low, high), (share, _) = mixture.means, mixture.weights
    return (
        f"the mixture has {100 * share:.0f} % around {low:.2f} (clean) and {100 - 100 * share:.0f} % around {high:.2f}"
    )


def _histogram(
    values_M: Floats, wrong_M: Bools | None, mixture: LossMixture | None, *, small: bool
) -> Callable[[Axes], None]:
    """Plots a histogram (correct and wrong labels stacked where known), and both components as lines."""
    bins = np.linspace(0, 1, (BINS // 2 if small else BINS) + 1)
    parts = [(values_M, "labels")] if wrong_M is None else [
        (values_M[~wrong_M], "correct labels"), (values_M[wrong_M], "wrong labels")
    ]  # fmt: skip

    def plot(ax: Axes) -> None:
        bottom = np.zeros(len(bins) - 1)
        for (values, name), colour in zip(parts, SERIES, strict=False):
            height = np.histogram(values, bins)[0] / max(len(values_M), 1) / np.diff(bins)
            ax.stairs(
                bottom + height, bins, baseline=bottom, fill=True, color=colour, alpha=0.55, linewidth=0, label=name
            )
            bottom = bottom + height
        top = 1.1 * bottom.max() if len(values_M) else 1.0
        if mixture is not None:
            grid = np.linspace(0, 1, 61 if small else 161)
            for density, style, name in zip(mixture.densities(grid), ("-", "--"), ("clean", "noisy"), strict=True):
                ax.plot(grid, density, color=INK, linewidth=1, linestyle=style, label=f"{name} component")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, top)
        if small:
            ax.set_yticks([])
            ax.set_xticks([0, 0.5, 1])
        else:
            ax.set_xlabel("normalised loss")
            ax.set_ylabel("density")
            ax.legend(loc="best")

    return plot


@dataclass(frozen=True)
class LossTest:
    """Kolmogorov-Smirnov tests of each class's losses against all losses.

    kind: of the labels, correct or wrong. p_values_K: None where a class has too few samples. different: share of the
    tested classes with p below 0.05.
    """

    kind: str
    p_values_K: list[float | None]
    different: float | None


def loss_tests(run: Run, scores: ScoreArrays | None) -> list[LossTest]:
    """Tests of each class's raw losses against all, separately for correct and wrong labels (Fig. 1).

    Network 1; empty without true labels or without scores.
    """
    trusted_N = run.labels.trusted_N
    if trusted_N is None or scores is None:
        return []
    tests = []
    for kind, rows_N in correct_and_wrong(run, trusted_N):
        values = class_ks_pvalues(scores.arrays["loss"][0][rows_N], run.labels.given_N[rows_N], len(run.class_names))
        known = [value for value in values if value is not None]
        share = float(np.mean([value < SIGNIFICANT for value in known])) if known else None
        tests.append(LossTest(kind, values, share))
    return tests


def density_figures(run: Run, scores: ScoreArrays | None) -> list[ReportFigure]:
    """Density of losses by class: mean and middle 95 % of the classes (CPC, Fig. 1)."""
    trusted_N, values_N = run.labels.trusted_N, scores.values(0) if scores is not None else None
    if trusted_N is None or values_N is None:
        return []
    figures = []
    for (kind, rows_N), colour in zip(correct_and_wrong(run, trusted_N), SERIES, strict=False):
        densities = class_densities(values_N[rows_N], run.labels.given_N[rows_N], len(run.class_names))
        if len(densities) < 2:
            continue
        text = f"Density of the losses of {kind} labels in {len(densities)} classes after the warm-up."
        caption = "Thin lines: classes; thick line: their mean; band: the middle 95 % of the classes."
        figures.append(
            draw(
                f"density-{kind}",
                f"Losses of {kind} labels by class",
                caption,
                text,
                density_plot(densities, colour),
            )
        )
    return figures


def correct_and_wrong(run: Run, trusted_N: Ints) -> list[tuple[str, Bools]]:
    """Which samples have a correct and which a wrong label, (N,) each; unknown ones are in neither."""
    correct_N = trusted_N == run.labels.given_N
    return [("correct", correct_N), ("wrong", ~correct_N & (trusted_N >= 0))]


def class_densities(values_M: Floats, labels_M: Ints, num_classes: int, bins: int = 25) -> Floats:
    """Histogram density on [0, 1] of each class with samples, (C, bins) float64."""
    rows = [
        np.histogram(values_M[labels_M == label], bins, (0, 1), density=True)[0]
        for label in range(num_classes)
        if (labels_M == label).any()
    ]
    return np.array(rows).reshape(-1, bins)


def density_plot(densities: Floats, colour: str) -> Callable[[Axes], None]:
    """Plots class densities (C, bins): thin lines (up to 20 classes), mean, and middle 95 %."""
    middle = (np.arange(densities.shape[1]) + 0.5) / densities.shape[1]
    low, high = np.percentile(densities, [2.5, 97.5], axis=0)

    def plot(ax: Axes) -> None:
        ax.fill_between(middle, low, high, color=colour, alpha=0.25, linewidth=0)
        for row in densities if len(densities) <= 20 else []:
            ax.plot(middle, row, color=colour, linewidth=0.5, alpha=0.7)
        ax.plot(middle, densities.mean(0), color=colour, linewidth=2)
        ax.set_xlim(0, 1)
        ax.set_ylim(0)
        ax.set_xlabel("normalised loss")
        ax.set_ylabel("density")

    return plot
