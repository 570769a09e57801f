"""All groups' two-component 1-D mixtures by EM, in NumPy: the CPU's form.

Values are sorted by group and, within a group, by value: a group is a contiguous segment and the result does not
depend on the order of the samples. Segments are cut into pieces of at most ``PIECE`` values, pieces are packed into
blocks that stay in the cache, and the sums of a block's pieces come from one ``np.add.reduceat``. Pieces depend on
their own group only, so a group's result is bit for bit that of a fit of this group alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PIECE = 8_192  # float64 values: some 20 arrays of this length fit a core's second-level cache
MIN_SAMPLES = 8  # a smaller group is not fitted
MIN_VARIANCE = 1e-12  # nor is one whose values vary by less
EPSILON = 10 * np.finfo(np.float64).eps  # what scikit-learn adds to a component's size
BINS = 256  # of the histogram from which the 2-means start is taken
EDGES = np.arange(1, BINS) / BINS  # between its bins, as shares of the range
LLOYD_STEPS = 64  # some 10 are needed
LOG_2PI = float(np.log(2.0 * np.pi))


class MixtureParams(NamedTuple):
    """Means, variances and weights, each (G, 2) float64; not ordered."""

    means: Floats
    variances: Floats
    weights: Floats

    def rows(self, index: Any) -> "MixtureParams":
        """The groups that ``index`` picks."""
        return MixtureParams(self.means[index], self.variances[index], self.weights[index])


@dataclass
class EmResult:
    """What EM leaves for each group: the mixture, the bound before the last M step, iterations, whether it settled."""

    mixture: MixtureParams
    lower_bound: Floats
    n_iter: Ints
    converged: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Segments:
    """Values of several groups, one group after the other, ascending within a group."""

    values: Floats  # (sum of counts,)
    counts: Ints  # (G,), each 1 or more

    def each(self) -> Iterator[Floats]:
        """The values of one group after the other."""
        start = 0
        for count in self.counts.tolist():
            yield self.values[start : start + count]
            start += count

    def pick(self, keep: npt.NDArray[np.bool_]) -> "Segments":
        """Only the groups that ``keep`` (G,) marks."""
        return Segments(self.values[np.repeat(keep, self.counts)], self.counts[keep])


def sort_groups(ids: npt.NDArray[Any], num_groups: int) -> tuple[npt.NDArray[np.intp], Ints]:
    """The stable order of samples by group, (N,), and the number of samples of each group, (G,)."""
    counts = np.bincount(ids.astype(np.int64, copy=False), minlength=num_groups).astype(np.int64)
    if num_groups <= np.iinfo(np.uint16).max:
        ids = ids.astype(np.uint16)  # NumPy sorts 16-bit numbers by radix, in linear time
    return np.argsort(ids, kind="stable"), counts


def sort_values(
    values: npt.NDArray[Any], order: tuple[npt.NDArray[np.intp], Ints] | None
) -> tuple[npt.NDArray[Any], Ints]:
    """``values`` by group (``sort_groups``; None: one group) and then by value, in their own dtype; and the counts."""
    if order is None:
        return np.sort(values), np.array([len(values)], dtype=np.int64)
    ordered, counts = values[order[0]], order[1]
    stops = np.cumsum(counts)
    for start, stop in zip((stops - counts).tolist(), stops.tolist(), strict=True):
        ordered[start:stop].sort()
    return ordered, counts


def fittable(segments: Segments) -> npt.NDArray[np.bool_]:
    """(G,) True where a group has samples enough and its values vary."""
    return np.array([len(x) >= MIN_SAMPLES and _moments(x)[1] >= MIN_VARIANCE for x in segments.each()], dtype=np.bool_)


def _moments(x: Floats) -> tuple[float, float]:
    """Mean and variance of ``x`` (n,), n >= 1; np.var does the same at three times the cost on short arrays."""
    mean = float(np.add.reduce(x)) / len(x)
    deviation = x - mean
    return mean, float(np.add.reduce(np.multiply(deviation, deviation, out=deviation))) / len(x)


def two_means(segments: Segments, reg_covar: float) -> MixtureParams:
    """The start: 2-means of each group, every sample wholly in its cluster, as scikit-learn's k-means start.

    In one dimension a clustering is a threshold. It starts at the best of ``BINS`` - 1 equally spaced ones, by the
    values' histogram (counts only: exact in any order of summation), and moves to the middle of the two means until
    no value changes sides (Lloyd). Deterministic, and the same on a GPU.
    """
    num_groups = len(segments.counts)
    mixture = MixtureParams(*(np.empty((num_groups, 2)) for _ in range(3)))
    for g, x in enumerate(segments.each()):
        split = _two_means_split(x)
        for c, part in enumerate((x[:split], x[split:])):
            mean, variance = _moments(part)
            mixture.means[g, c], mixture.variances[g, c] = mean, variance + reg_covar
            mixture.weights[g, c] = len(part) / len(x)
    return mixture


def _two_means_split(x: Floats) -> int:
    """How many of the ascending values ``x`` (n,), not all equal, are in the lower cluster: 1 to n - 1."""
    offset = x - x[0]
    below = np.searchsorted(offset, offset[-1] * EDGES)  # values under each inner edge
    counts = np.empty(BINS, dtype=np.int64)
    counts[0], counts[1:-1], counts[-1] = below[0], below[1:] - below[:-1], len(x) - below[-1]
    position = np.cumsum(counts * (np.arange(BINS) + 0.5))  # sums of the values, in bins, each at the middle of its bin
    deviation = position[:-1] - below * (position[-1] / len(x))
    split = int(below[np.argmax(deviation * deviation / (below * (len(x) - below)))])
    sums = np.cumsum(offset)
    for _ in range(LLOYD_STEPS):
        middle = 0.5 * (sums[split - 1] / split + (sums[-1] - sums[split - 1]) / (len(x) - split))
        previous, split = split, int(np.searchsorted(offset, middle, side="right"))
        if split == previous:
            break
    return split


def run_em(segments: Segments, start: MixtureParams, max_iter: int, tol: float, reg_covar: float) -> EmResult:
    """EM of every group until its own bound settles; a group that has settled costs nothing more."""
    num_groups = len(segments.counts)
    result = EmResult(
        MixtureParams(*(part.copy() for part in start)),
        np.full(num_groups, -np.inf),
        np.zeros(num_groups, dtype=np.int64),
        np.zeros(num_groups, dtype=np.bool_),
    )
    active = np.arange(num_groups)
    pieces = Pieces(segments)
    for n_iter in range(1, max_iter + 1):
        if not len(active):
            break
        mixture = result.mixture.rows(active)
        sums_G7 = pieces.expect(mixture)
        bound = sums_G7[:, 6] / segments.counts
        settled = np.abs(bound - result.lower_bound[active]) < tol
        for whole, part in zip(result.mixture, maximise(mixture, sums_G7, reg_covar), strict=True):
            whole[active] = part
        result.lower_bound[active] = bound
        result.n_iter[active] = n_iter
        result.converged[active] = settled
        if settled.any():
            segments, active = segments.pick(~settled), active[~settled]
            pieces = Pieces(segments)
    return result


def maximise(old: MixtureParams, sums_G7: Floats, reg_covar: float) -> MixtureParams:
    """The M step from moments about the old means, which keeps variances exact where a common origin would cancel."""
    resp, first, second = sums_G7[:, 0:2], sums_G7[:, 2:4], sums_G7[:, 4:6]
    size = resp + EPSILON
    means = (first + old.means * resp) / size
    shift = means - old.means
    variances = (second - 2.0 * shift * first + shift * shift * resp) / size + reg_covar
    return MixtureParams(means, variances, size / size.sum(axis=1, keepdims=True))


class Pieces:
    """Segments cut and packed for the cache."""

    def __init__(self, segments: Segments) -> None:
        self.values = segments.values
        num_pieces = -(-segments.counts // PIECE)
        self.first = np.cumsum(num_pieces) - num_pieces  # each group's first piece
        self.group = np.repeat(np.arange(len(segments.counts)), num_pieces)
        self.length = np.full(len(self.group), PIECE, dtype=np.int64)
        self.length[self.first + num_pieces - 1] = segments.counts - (num_pieces - 1) * PIECE
        self.blocks = list(self._pack())
        self.room = np.empty((10, PIECE))

    def _pack(self) -> Iterator[tuple[int, int, int, int]]:
        """(first piece, end piece, first value, end value) of blocks of whole pieces that together fit ``PIECE``."""
        begin, filled, position = 0, 0, 0
        for piece, length in enumerate(self.length.tolist()):
            if filled + length > PIECE:
                yield begin, piece, position, position + filled
                begin, position, filled = piece, position + filled, 0
            filled += length
        if filled:
            yield begin, len(self.length), position, position + filled

    def expect(self, mixture: MixtureParams) -> Floats:
        """The E step: for each group the sums of r_0, r_1, r_0 d_0, r_1 d_1, r_0 d_0^2, r_1 d_1^2 and log p(x), (G, 7).

        r_c is the responsibility of component c, d_c = x - its mean.
        """
        with np.errstate(all="ignore"):  # a collapsed component (reg_covar 0) is found by its result
            half = 0.5 / mixture.variances
            const = np.log(mixture.weights) - 0.5 * (np.log(mixture.variances) + LOG_2PI)
            coefs = np.concatenate([mixture.means, half, const], axis=1)[self.group]
            sums = np.empty((len(self.group), 7))
            for begin, end, start, stop in self.blocks:
                length = self.length[begin:end]
                block_coefs = coefs[begin] if end - begin == 1 else np.repeat(coefs[begin:end], length, axis=0).T
                terms = _expect_block(self.values[start:stop], block_coefs, self.room[:, : stop - start])
                sums[begin:end] = np.add.reduceat(terms, np.cumsum(length) - length, axis=1).T
        return np.add.reduceat(sums, self.first, axis=0)


def _expect_block(x: Floats, coefs: Any, room: Floats) -> Floats:
    """The seven summands of each value, (7, n), in ``room`` (10, n); ``coefs``: 6 numbers or (6, n)."""
    mean_0, mean_1, half_0, half_1, const_0, const_1 = coefs
    r_0, r_1, first_0, first_1, second_0, second_1, log_sum, a, b, small = room
    np.subtract(x, mean_0, out=first_0)
    np.subtract(x, mean_1, out=first_1)
    np.multiply(first_0, first_0, out=second_0)
    np.multiply(first_1, first_1, out=second_1)
    np.subtract(const_0, np.multiply(second_0, half_0, out=a), out=a)
    np.subtract(const_1, np.multiply(second_1, half_1, out=b), out=b)
    np.maximum(a, b, out=log_sum)
    nearer_0 = np.greater_equal(a, b)
    np.exp(np.negative(np.abs(np.subtract(a, b, out=a), out=a), out=a), out=a)  # the smaller density over the larger
    log_sum += np.log1p(a, out=b)
    larger = np.divide(1.0, np.add(a, 1.0, out=b), out=b)
    np.multiply(a, larger, out=small)
    np.copyto(r_0, small)
    np.copyto(r_0, larger, where=nearer_0)
    np.copyto(r_1, larger)
    np.copyto(r_1, small, where=nearer_0)
    first_0 *= r_0
    first_1 *= r_1
    second_0 *= r_0
    second_1 *= r_1
    return room[:7]


def posterior(values: npt.NDArray[Any], groups: npt.NDArray[Any] | None, mixture: MixtureParams) -> Floats:
    """The posterior (N,) of component 0 under each value's own group's mixture; NaN where its parameters are NaN."""
    half = 0.5 / mixture.variances
    const = np.log(mixture.weights) - 0.5 * np.log(mixture.variances)
    coefs = np.concatenate([mixture.means, half, const], axis=1)
    out = np.empty(len(values))
    for start in range(0, len(values), PIECE):
        rows = slice(start, start + PIECE)
        x = values[rows].astype(np.float64)
        mean_0, mean_1, half_0, half_1, const_0, const_1 = coefs[0] if groups is None else coefs[groups[rows]].T
        log_odds = (const_0 - half_0 * (x - mean_0) ** 2) - (const_1 - half_1 * (x - mean_1) ** 2)
        ratio = np.exp(-np.abs(log_odds))
        out[rows] = np.where(log_odds >= 0.0, 1.0, ratio) / (1.0 + ratio)
    return out
