"""The mixtures of ``fit_gmm`` where each rank sees only its own samples: sums travel, losses do not.

An iteration sends seven float64 numbers a class, the 2-means start a histogram of 256 counts a class and then two
numbers a class and Lloyd step. The same EM as ``fit_gmm``, from the same start; results differ by the order of sums
alone. Training takes it by ``parallel.mixture=summed``: each rank sorts and sums its share of the losses, not all.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastcpc.distributed import all_gather, all_reduce_sum
from fastcpc.kernels import MixtureFit
from fastcpc.kernels.gmm_numpy import (
    BINS,
    EDGES,
    LLOYD_STEPS,
    MIN_SAMPLES,
    MIN_VARIANCE,
    MixtureParams,
    Pieces,
    Segments,
    maximise,
    sort_groups,
    sort_values,
)

Floats = npt.NDArray[np.float64]


def fit_gmm_over_ranks(
    values_n: Tensor,
    groups_n: Tensor,
    num_groups: int,
    *,
    max_iter: int = 10,
    tol: float = 1e-2,
    reg_covar: float = 5e-4,
) -> MixtureFit:
    """Fit a two-component mixture to each group's values on all ranks together; every rank must call.

    values_n: (n,) floating, finite, this rank's own, any number. groups_n: (n,) int64 in [0, num_groups). The rest as
    ``fit_gmm``. Returns the same fit on every rank, tensors of float64 on the values' device.
    """
    segments = [np.asarray(part, np.float64) for part in _split(values_n, groups_n, num_groups)]
    start, fitted = _start(segments, reg_covar)
    mixture = MixtureParams(*(part.copy() for part in start))
    counts_G = _sum(np.array([len(x) for x in segments], np.float64))
    bound_G = np.full(num_groups, -np.inf)
    n_iter_G = np.zeros(num_groups, np.int64)
    converged_G = np.zeros(num_groups, np.bool_)
    active = np.flatnonzero(fitted)
    for iteration in range(1, max_iter + 1):
        if not len(active):
            break
        old = mixture.rows(active)
        sums_G7 = _sum(_expect([segments[g] for g in active], old))
        bound = sums_G7[:, 6] / counts_G[active]
        settled = np.abs(bound - bound_G[active]) < tol
        for whole, part in zip(mixture, maximise(old, sums_G7, reg_covar), strict=True):
            whole[active] = part
        bound_G[active], n_iter_G[active], converged_G[active] = bound, iteration, settled
        active = active[~settled]
    order = np.argsort(mixture.means, axis=1, kind="stable")
    parts = [np.where(fitted[:, None], np.take_along_axis(part, order, axis=1), np.nan) for part in mixture]
    bound_G[~fitted] = np.nan
    return MixtureFit(
        *(torch.from_numpy(array).to(values_n.device) for array in (*parts, bound_G, n_iter_G, converged_G, fitted))
    )


def _split(values_n: Tensor, groups_n: Tensor, num_groups: int) -> list[Floats]:
    """This rank's values of each group, ascending."""
    ordered, counts = sort_values(values_n.detach().cpu().numpy(), sort_groups(groups_n.cpu().numpy(), num_groups))
    return np.split(ordered, np.cumsum(counts)[:-1])


def _expect(segments: list[Floats], mixture: MixtureParams) -> Floats:
    """The E step's sums over this rank's samples, (G, 7); zeros for a group that has none here."""
    here = np.array([len(x) > 0 for x in segments])
    sums_G7 = np.zeros((len(segments), 7))
    if here.any():
        own = Segments(np.concatenate(segments), np.array([len(x) for x in segments if len(x)], np.int64))
        sums_G7[here] = Pieces(own).expect(mixture.rows(here))
    return sums_G7


def _start(segments: list[Floats], reg_covar: float) -> tuple[MixtureParams, npt.NDArray[np.bool_]]:
    """2-means of each group as ``gmm_numpy.two_means`` finds them, and which groups can be fitted."""
    num_groups = len(segments)
    low_G, high_G = _range(segments)
    counts_G, mean_G, variance_G = _moments(segments)
    fitted = (counts_G >= MIN_SAMPLES) & (variance_G >= MIN_VARIANCE)
    offsets = [x - low for x, low in zip(segments, low_G, strict=True)]
    sums_G = _sum(np.array([x.sum() for x in offsets]))
    below_GE = _sum(
        np.array(
            [np.searchsorted(x, (high - low) * EDGES) for x, low, high in zip(offsets, low_G, high_G, strict=True)]
        )
    )
    split_G = np.zeros(num_groups, np.int64)  # of this rank's own values, how many are in the lower cluster
    total_G = np.zeros(num_groups)  # of all ranks'
    for g in np.flatnonzero(fitted):
        best = _best_edge(below_GE[g], counts_G[g])
        split_G[g] = np.searchsorted(offsets[g], (high_G[g] - low_G[g]) * EDGES[best])
        total_G[g] = below_GE[g, best]
    moving = fitted.copy()
    for _ in range(LLOYD_STEPS):
        if not moving.any():
            break
        lower_G = _sum(np.array([x[:split].sum() for x, split in zip(offsets, split_G, strict=True)]))
        with np.errstate(all="ignore"):
            middle_G = 0.5 * (lower_G / total_G + (sums_G - lower_G) / (counts_G - total_G))
        for g in np.flatnonzero(moving):
            split_G[g] = np.searchsorted(offsets[g], middle_G[g], side="right")
        previous_G, total_G = total_G, _sum(split_G.astype(np.float64))
        moving &= total_G != previous_G
    mixture = MixtureParams(*(np.full((num_groups, 2), np.nan) for _ in range(3)))
    for c, parts in enumerate((
        [x[:split] for x, split in zip(segments, split_G, strict=True)],
        [x[split:] for x, split in zip(segments, split_G, strict=True)],
    )):  # fmt: skip
        size_G, mean_G, variance_G = _moments(parts)
        mixture.means[:, c], mixture.variances[:, c] = mean_G, variance_G + reg_covar
        mixture.weights[:, c] = size_G / np.maximum(counts_G, 1)
    return mixture, fitted


def _best_edge(below_E: Floats, count: float) -> int:
    """The edge of the histogram that parts the group best, by counts alone."""
    counts = np.diff(np.concatenate([[0.0], below_E, [count]]))
    position = np.cumsum(counts * (np.arange(BINS) + 0.5))
    with np.errstate(all="ignore"):
        deviation = position[:-1] - below_E * (position[-1] / count)
        return int(np.argmax(np.nan_to_num(deviation * deviation / (below_E * (count - below_E)), nan=-1.0)))


def _moments(parts: list[Floats]) -> tuple[Floats, Floats, Floats]:
    """Counts, means and variances over all ranks, (G,) each; 0 where a group is empty."""
    counts_G = _sum(np.array([len(x) for x in parts], np.float64))
    mean_G = _sum(np.array([x.sum() for x in parts])) / np.maximum(counts_G, 1)
    squares = [np.square(x - mean).sum() for x, mean in zip(parts, mean_G, strict=True)]
    return counts_G, mean_G, _sum(np.array(squares)) / np.maximum(counts_G, 1)


def _range(segments: list[Floats]) -> tuple[Floats, Floats]:
    """Smallest and largest value of each group over all ranks; 0 where it is empty."""
    own = np.array([[x[0], x[-1]] if len(x) else [np.inf, -np.inf] for x in segments])
    every = np.stack([part.numpy() for part in all_gather(torch.from_numpy(own), "mixture")])
    low_G, high_G = every[..., 0].min(0), every[..., 1].max(0)
    empty = ~np.isfinite(low_G)
    return np.where(empty, 0.0, low_G), np.where(empty, 0.0, high_G)


def _sum(array: npt.NDArray[np.generic]) -> Floats:
    return all_reduce_sum(torch.from_numpy(array.astype(np.float64)), "mixture").numpy()
