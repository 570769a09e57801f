"""Figures of classes: confusion matrix, prototypes, map of embeddings, clean probabilities by cleaner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patheffects import withStroke

from fastcpc.arrays import Floats, Ints
from fastcpc.cleaner.registry import cleaner_title
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.engine.outputs.score_file import ScoreArrays
from fastcpc.report.html.canvas import INK, PAPER, SERIES, ReportFigure, draw, plain_name
from fastcpc.report.results.run import Run

MOST_NUMBERED = 15  # classes up to which cells have room for a number
MOST_DRAWN = 50  # classes up to which a matrix is drawn; tables show the rest
MOST_DOTS = 1_500
MOST_PAIRS = 12
GRID = 25


@dataclass(frozen=True)
class Pair:
    """Number of labels of one class that the networks predict as another. given, predicted: class ids."""

    given: int
    predicted: int
    count: int
    share: float  # of the samples with this given label


def confusion(given_N: Ints, predicted_N: Ints, num_classes: int) -> Ints:
    """Number of samples per given label (row) and predicted label (column): (K, K) int64."""
    cells = np.bincount(given_N * num_classes + predicted_N, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def worst_pairs(counts_KK: Ints, most: int = MOST_PAIRS) -> list[Pair]:
    """The most frequent pairs of different given and predicted labels, in descending order of their counts > 0."""
    off_KK = counts_KK.copy()
    np.fill_diagonal(off_KK, 0)
    order = np.argsort(-off_KK, axis=None, kind="stable")[:most]
    total_K = counts_KK.sum(1)
    pairs = []
    for given, predicted in zip(*np.unravel_index(order, off_KK.shape), strict=True):
        count = int(off_KK[given, predicted])
        if count:
            pairs.append(Pair(int(given), int(predicted), count, count / int(total_K[given])))
    return pairs


def confusion_figure(run: Run, samples: SampleTable) -> ReportFigure | None:
    """Confusion matrix as shares of the given label; None above MOST_DRAWN classes."""
    num_classes = len(run.class_names)
    if num_classes > MOST_DRAWN:
        return None
    counts_KK = confusion(samples.given_N, samples.predicted_N, num_classes)
    pairs = worst_pairs(counts_KK, 1)
    text = f"Matrix of {num_classes} given by {num_classes} predicted labels."
    if pairs:
        given, predicted = (plain_name(run.class_names[k]) for k in (pairs[0].given, pairs[0].predicted))
        text += f" Most frequent change: {given} to {predicted}, {pairs[0].count} times."
    caption = "Percent of the labels of a row that both networks together predict as the column."
    return draw(
        "confusion", "Given and predicted labels", caption, text,
        confusion_plot(run, samples), height=1.4,
    )  # fmt: skip


def confusion_plot(run: Run, samples: SampleTable) -> Callable[[Axes], None]:
    """Plots the confusion matrix, as shares of the given label."""
    counts_KK = confusion(samples.given_N, samples.predicted_N, len(run.class_names))
    share_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    return matrix_plot(share_KK, run.class_names, "predicted", "given")


def prototype_figure(run: Run, scores: ScoreArrays | None) -> ReportFigure | None:
    """Cosine similarity of network 1's prototypes; None without prototypes or above MOST_DRAWN classes."""
    if scores is None or "prototypes" not in scores.arrays or len(run.class_names) > MOST_DRAWN:
        return None
    cosine_KK = similarity(scores.arrays["prototypes"][0])
    off_KK = cosine_KK - 2 * np.eye(len(cosine_KK))
    one, two = (int(place) for place in np.unravel_index(np.argmax(off_KK), off_KK.shape))
    names = [plain_name(run.class_names[k]) for k in (one, two)]
    text = f"Cosine similarity of prototypes; the closest two are {names[0]} and {names[1]}, {cosine_KK[one, two]:.2f}."
    caption = "Cosine similarity of the class prototypes of network 1, in percent; negative values are empty."
    return draw(
        "prototypes", "Similarity of the prototypes", caption, text,
        matrix_plot(np.clip(cosine_KK, 0, 1), run.class_names, "", ""), height=1.4,
    )  # fmt: skip


def similarity(prototypes_KE: Floats) -> Floats:
    """Cosines between prototypes, (K, K) float64 in [-1, 1]."""
    rows = np.asarray(prototypes_KE, np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(unit @ unit.T)


def matrix_plot(share_KK: Floats, names: Sequence[str], across: str, down: str) -> Callable[[Axes], None]:
    """Plots a matrix in [0, 1]: opacity shows the value; percent where there is room."""
    num_classes = len(share_KK)

    def plot(ax: Axes) -> None:
        _cells(ax, share_KK, np.arange(num_classes + 1) - 0.5)
        if num_classes <= MOST_NUMBERED:
            for row, column in np.argwhere(share_KK >= 0.005):
                value = f"{100 * share_KK[row, column]:.0f}"
                ax.text(column, row, value, ha="center", va="center", fontsize=6.5)
        ax.invert_yaxis()
        ax.set_aspect("equal")
        ax.grid(False)
        labels = [plain_name(name, 12) for name in names]
        size = 8 if num_classes <= MOST_NUMBERED else 5
        ax.set_xticks(range(num_classes), labels, rotation=90, fontsize=size)
        ax.set_yticks(range(num_classes), labels, fontsize=size)
        ax.set_xlabel(across)
        ax.set_ylabel(down)

    return plot


def _cells(ax: Axes, share: Floats, edges: Floats) -> None:
    """Squares in one colour with the share as opacity; zeros are left out."""
    corners, opacity = [], []
    for row, column in np.argwhere(share > 0):
        x, y = edges[column : column + 2], edges[row : row + 2]
        corners.append([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])])
        opacity.append(0.06 + 0.8 * float(share[row, column]))
    ax.add_collection(PolyCollection(corners, facecolors=SERIES[0], alpha=opacity, linewidths=0))
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(edges[0], edges[-1])


def probability_figure(run: Run, scores: ScoreArrays | None) -> ReportFigure | None:
    """Clean probability by the last two cleaners that ran, network 1, as counts on a grid; None with fewer cleaners."""
    names = scores.cleaners if scores is not None else []
    if scores is None or len(names) < 2:
        return None
    before_N, after_N = (scores.arrays[f"q_{name}"][0] for name in names[-2:])
    before, after = map(cleaner_title, names[-2:])
    edges = np.linspace(0, 1, GRID + 1)
    counts = np.histogram2d(after_N, before_N, (edges, edges))[0]
    share = np.log1p(counts) / np.log1p(counts.max())
    tau = run.config.cleaner.tau
    both = [((before_N > tau) == side[0]) & ((after_N > tau) == side[1]) for side in ((1, 1), (0, 0), (1, 0), (0, 1))]
    text = (
        "Predicted clean by both {:.1f} %, noisy by both {:.1f} %, clean only by the {before} {:.1f} %, only by the "
        "{after} {:.1f} % of all labels."
    ).format(*(100 * part.mean() for part in both), before=before, after=after)

    def plot(ax: Axes) -> None:
        _cells(ax, share, edges)
        ax.axvline(tau, color=INK, linewidth=0.8, linestyle=":")
        ax.axhline(tau, color=INK, linewidth=0.8, linestyle=":")
        ax.set_aspect("equal")
        ax.set_xlabel(f"clean probability by the {before}")
        ax.set_ylabel(f"clean probability by the {after}")

    caption = f"Network 1; opacity: logarithm of the count. Dotted: tau = {tau:g}, predicted clean above it. {text}"
    return draw("q", "Clean probability by both cleaners", caption, text, plot, height=1.3)


def project(embeddings_ME: Floats) -> tuple[Floats, float]:
    """Embeddings on their first two principal axes, (M, 2) float64, and the share of variance on them."""
    rows = np.asarray(embeddings_ME, np.float64)
    centred = rows - rows.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T, float((singular[:2] ** 2).sum() / max((singular**2).sum(), 1e-300))


def map_figure(run: Run, samples: SampleTable | None, scores: ScoreArrays | None) -> ReportFigure | None:
    """Scatter plot of embeddings: filled where the label is predicted clean, else hollow; names at the medians."""
    if samples is None or scores is None or "embeddings" not in scores.arrays:
        return None
    if scores.arrays["embeddings"].shape[-1] < 2:
        return None
    points, explained = project(scores.arrays["embeddings"][0])
    rows = scores.arrays["rows"]
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_DOTS)).astype(np.int64)
    points, rows = points[chosen], rows[chosen]
    given = run.labels.given_N[rows]
    clean = samples.is_clean_N[rows]
    few = len(run.class_names) <= len(SERIES) * 3

    def plot(ax: Axes) -> None:
        for label in np.unique(given):
            colour, shape = SERIES[label % len(SERIES)], "os^"[label // len(SERIES) % 3]
            for is_clean, face in ((True, colour), (False, "none")):
                at = points[(given == label) & (clean == is_clean)]
                ax.scatter(
                    at[:, 0],
                    at[:, 1],
                    s=5,
                    marker=shape,
                    facecolors=face,
                    edgecolors=colour,
                    alpha=0.55,
                    linewidths=0.5,
                )
        for label in np.unique(given[clean]) if few else ():
            x, y = np.median(points[(given == label) & clean], axis=0)
            name = ax.text(x, y, plain_name(run.class_names[label], 12), weight="bold", ha="center", va="center")
            name.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel("first principal axis")
        ax.set_ylabel("second")

    caption = (
        f"{len(rows):,} samples in network 1's embedding on its two principal axes ({100 * explained:.0f} % of the "
        "variance). Colour and shape: given label; hollow: predicted noisy."
    )
    share = 100 * clean.mean()
    text = f"Scatter plot of {len(rows)} embeddings coloured by given label; {share:.0f} % are predicted clean."
    return draw("map", "Map of embeddings", caption, text, plot, height=1.4)
