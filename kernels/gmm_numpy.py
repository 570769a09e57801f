"""All groups' two-component 1-D mixtures by EM, in NumPy: the CPU's form.

Values are sorted by group and, within a group, by value. A group is a contiguous segment, and the result does not
depend on the order of the samples. Segments are cut into pieces of at most ``PIECE`` values. Pieces are packed into
blocks that stay in the cache, and one ``np.add.reduceat`` sums a block's pieces. Pieces depend on their own group only,
so a group's result is bit-identical to a fit of this group alone.

The values of a group may be spread over several processes. Every sum and every maximum passes through a ``Reduce``,
so that all processes find the same mixtures without sending values.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PIECE = 8_192  # float64 values: some 20 arrays of this length fit a core's second-level cache
MIN_SAMPLES = 8  # a smaller group is not fitted
MIN_VARIANCE = 1e-12  # a group whose values vary by less is not fitted
EPSILON = 10 * np.finfo(np.float64).eps  # what scikit-learn adds to a component's size
BINS = 256  # of the histogram from which the 2-means start is taken
EDGES = np.arange(1, BINS) / BINS  # between its bins, as shares of the range
LLOYD_STEPS = 64  # about 10 are needed
LOG_2PI = float(np.log(2.0 * np.pi))


class Reduce(NamedTuple):
    """How one process's float64 array becomes that of all processes; each process must call in the same order.

    total: the elementwise sum. largest: the elementwise maximum.
    """

    total: Callable[[Floats], Floats]
    largest: Callable[[Floats], Floats]


ALONE = Reduce(total=lambda sums: sums, largest=lambda maxima: maxima)  # one process has all values


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
    """The result of EM for each group: mixture, bound before the last M step, iterations, convergence."""

    mixture: MixtureParams
    lower_bound: Floats
    n_iter: Ints
    converged: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Segments:
    """This process's values of several groups, one group after the other, ascending within a group."""

    values: Floats  # (sum of counts,)
    counts: Ints  # (G,) of this process, 0 or more
    totals: Ints  # (G,) of all processes, 1 or more

    def each(self) -> Iterator[Floats]:
        """The values of one group after the other."""
        start = 0
        for count in self.counts.tolist():
            yield self.values[start : start + count]
            start += count

    def pick(self, keep: npt.NDArray[np.bool_]) -> "Segments":
        """Only the groups that ``keep`` (G,) marks."""
        return Segments(self.values[np.repeat(keep, self.counts)], self.counts[keep], self.totals[keep])


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


def fittable(segments: Segments, reduce: Reduce = ALONE) -> npt.NDArray[np.bool_]:
    """(G,) True where a group has samples enough and its values vary."""
    _, variance_G = _moments(list(segments.each()), segments.totals, reduce)
    return (segments.totals >= MIN_SAMPLES) & (variance_G >= MIN_VARIANCE)


def _moments(parts: Sequence[Floats], totals: Ints, reduce: Reduce) -> tuple[Floats, Floats]:
    """Means and variances over all processes, (G,) each; np.var costs three times as much on short arrays."""
    mean_G = reduce.total(np.array([np.add.reduce(x) for x in parts])) / totals
    squares = []
    for x, mean in zip(parts, mean_G, strict=True):
        deviation = x - mean
        squares.append(np.add.reduce(np.multiply(deviation, deviation, out=deviation)))
    return mean_G, reduce.total(np.array(squares)) / totals


def two_means(segments: Segments, reg_covar: float, reduce: Reduce = ALONE) -> MixtureParams:
    """The start of EM: 2-means of each group, every sample wholly in its cluster, as scikit-learn's k-means start.

    In one dimension a clustering is a threshold. It starts at the best of ``BINS`` - 1 equally spaced ones, by the
    values' histogram (counts only: exact in any order of summation). It then moves to the middle of the two means until
    no value changes sides (Lloyd). Deterministic, and the same on a GPU.
    """
    groups, totals = list(segments.each()), segments.totals
    splits, sizes = _two_means_splits(groups, totals, reduce)
    mixture = MixtureParams(*(np.empty((len(groups), 2)) for _ in range(3)))
    lower = [x[:split] for x, split in zip(groups, splits.tolist(), strict=True)]
    upper = [x[split:] for x, split in zip(groups, splits.tolist(), strict=True)]
    for c, (parts, size) in enumerate(((lower, sizes), (upper, totals - sizes))):
        mixture.means[:, c], variance_G = _moments(parts, size, reduce)
        mixture.variances[:, c] = variance_G + reg_covar
        mixture.weights[:, c] = size / totals
    return mixture


def _two_means_splits(groups: Sequence[Floats], totals: Ints, reduce: Reduce) -> tuple[Ints, Ints]:
    """How many of each group's values are in the lower cluster: of this process's, and of all, (G,) each.

    The values of a group are not all equal.
    """
    low_G, high_G = _ranges(groups, reduce)
    offsets = [x - low for x, low in zip(groups, low_G, strict=True)]
    below_GE = np.empty((len(groups), BINS - 1), np.int64)  # this process's values under each inner edge
    for below_E, offset, width in zip(below_GE, offsets, high_G - low_G, strict=True):
        below_E[:] = np.searchsorted(offset, width * EDGES)
    all_below_GE = _total(below_GE, reduce)
    best = np.arange(len(groups)), _best_edges(all_below_GE, totals)
    splits, sizes = below_GE[best], all_below_GE[best]

    sums = [np.cumsum(offset) for offset in offsets]
    sum_G = reduce.total(np.array([x[-1] if len(x) else 0.0 for x in sums]))
    moving = np.arange(len(groups))
    for _ in range(LLOYD_STEPS):
        if not len(moving):
            break
        lower_M = reduce.total(np.array([sums[g][splits[g] - 1] if splits[g] else 0.0 for g in moving.tolist()]))
        size_M = sizes[moving]
        middle_M = 0.5 * (lower_M / size_M + (sum_G[moving] - lower_M) / (totals[moving] - size_M))
        for g, middle in zip(moving.tolist(), middle_M, strict=True):
            splits[g] = np.searchsorted(offsets[g], middle, side="right")
        sizes[moving] = _total(splits[moving], reduce)
        moving = moving[sizes[moving] != size_M]
    return splits, sizes


def _ranges(groups: Sequence[Floats], reduce: Reduce) -> tuple[Floats, Floats]:
    """The smallest and the largest value of each group over all processes, (G,) each."""
    largest_2G = np.array([[-x[0] if len(x) else -np.inf, x[-1] if len(x) else -np.inf] for x in groups]).reshape(-1, 2)
    largest = reduce.largest(largest_2G)
    return -largest[:, 0], largest[:, 1]


def _best_edges(below_GE: Ints, totals: Ints) -> Ints:
    """The edge of each group's histogram that separates its values best, (G,); below each edge are 1 to n - 1."""
    counts = np.diff(below_GE, axis=1, prepend=0, append=totals[:, None])
    # sums of the values, in bins, each at the middle of its bin
    position = np.cumsum(counts * (np.arange(BINS) + 0.5), axis=1)
    deviation = position[:, :-1] - below_GE * (position[:, -1:] / totals[:, None])
    between = deviation * deviation / (below_GE * (totals[:, None] - below_GE))
    return np.asarray(np.argmax(between, axis=1), np.int64)


def _total(counts: Ints, reduce: Reduce) -> Ints:
    return reduce.total(counts.astype(np.float64)).astype(np.int64)


def run_em(
    segments: Segments, start: MixtureParams, max_iter: int, tol: float, reg_covar: float, reduce: Reduce = ALONE
) -> EmResult:
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
        sums_G7 = reduce.total(pieces.expect(mixture))
        bound = sums_G7[:, 6] / segments.totals
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
        self.present = segments.counts > 0  # groups of which this process has values
        num_pieces = -(-segments.counts // PIECE)
        self.first = np.cumsum(num_pieces) - num_pieces  # each group's first piece
        self.group = np.repeat(np.arange(len(segments.counts)), num_pieces)
        self.length = np.full(len(self.group), PIECE, dtype=np.int64)
        last, rest = self.first + num_pieces - 1, segments.counts - (num_pieces - 1) * PIECE
        self.length[last[self.present]] = rest[self.present]
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

        r_c is the responsibility of component c, d_c = x - its mean. The sums are over this process's values.
        """
        with np.errstate(all="ignore"):  # the result shows a collapsed component (reg_covar 0)
            half = 0.5 / mixture.variances
            const = np.log(mixture.weights) - 0.5 * (np.log(mixture.variances) + LOG_2PI)
            coefs = np.concatenate([mixture.means, half, const], axis=1)[self.group]
            sums = np.empty((len(self.group), 7))
            for begin, end, start, stop in self.blocks:
                length = self.length[begin:end]
                block_coefs = coefs[begin] if end - begin == 1 else np.repeat(coefs[begin:end], length, axis=0).T
                terms = _expect_block(self.values[start:stop], block_coefs, self.room[:, : stop - start])
                sums[begin:end] = np.add.reduceat(terms, np.cumsum(length) - length, axis=1).T
        sums_G7 = np.zeros((len(self.present), 7))
        sums_G7[self.present] = np.add.reduceat(sums, self.first[self.present], axis=0)
        return sums_G7


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
