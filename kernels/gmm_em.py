"""One two-component 1-D Gaussian mixture for each group of values, all groups at once, by EM.

The same EM as scikit-learn's ``GaussianMixture(n_components=2, covariance_type="full")`` on one column, with the same M
step, ``reg_covar`` and stop. An iteration that moves the mean log-likelihood by less than ``tol`` is the last. Sums in
float64. Arrays in main memory go to gmm_numpy, arrays on a GPU to gmm_cupy. Without a working CuPy, tensors on a GPU
are fitted in main memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from . import gmm_cupy, gmm_numpy
from .gmm_checks import (
    check_forms,
    check_groups_form,
    check_ids,
    check_init_forms,
    check_start,
    checked,
    home,
    like,
    refuse,
    to_numpy,
)
from .gmm_numpy import ALONE, EmResult, MixtureParams, Reduce, Segments
from .inputs import Array, as_array, as_integer, as_number, kind, library


@dataclass(frozen=True)
class GroupOrder:
    """Samples sorted by group, once for many fits of the same groups; made by ``order_groups``."""

    groups: Array
    num_groups: int
    order: Any  # of the form that fits them: NumPy's argsort and counts, or a DeviceOrder


@dataclass(frozen=True)
class MixtureFit:
    """Fitted mixtures of G groups; arrays of the kind that ``fit_gmm`` was given.

    means, variances, weights: (G, 2) float64, the component of the smaller mean first. lower_bound: (G,) float64, mean
    log-likelihood before the last M step. n_iter: (G,) int64. converged: (G,) bool. fitted: (G,) bool, False where the
    group was too small or constant; there means, variances, weights and lower_bound are NaN and n_iter is 0.
    """

    means: Array
    variances: Array
    weights: Array
    lower_bound: Array
    n_iter: Array
    converged: Array
    fitted: Array

    def clean_probability(self, values: Array, groups: Array | GroupOrder | None = None) -> Array:
        """Posterior of the component with the smaller mean: (N,) float64 in [0, 1], NaN in a group without a fit.

        values: (N,) floating and finite, any samples. groups: (N,) integer in [0, G), or None where G is 1. ValueError
        as ``fit_gmm``.
        """
        values = as_array("values", values)
        if home(values) != home(self.means):
            raise ValueError(f"values: expected a {home(self.means)} array as the fit was given, got {kind(values)}")
        num_groups = self.means.shape[0]
        ids = _ids(groups, num_groups, values)
        check_forms(values, ids, num_groups)
        mixture = self.means, self.variances, self.weights
        if gmm_cupy.takes(values):
            probability, problems = gmm_cupy.posterior_on_device(values, ids, mixture)
            if any(problems):
                refuse(values, ids, num_groups)
            return probability
        numbers, numbers_of_groups = checked(values, ids, num_groups)
        mixture_np = MixtureParams(*(to_numpy(part) for part in mixture))
        return like(gmm_numpy.posterior(numbers, numbers_of_groups, mixture_np), values)


def order_groups(groups: Array, num_groups: int) -> GroupOrder:
    """Sorts the samples by group once, for several calls of ``fit_gmm`` on the same groups (a run's given labels).

    groups: (N,) integer in [0, num_groups); NumPy, torch or CuPy. ValueError as ``fit_gmm``.
    """
    num_groups, groups = as_integer("num_groups", num_groups), as_array("groups", groups)
    check_groups_form(groups, library(groups))
    if gmm_cupy.takes(groups):
        return GroupOrder(groups, num_groups, gmm_cupy.order_on_device(groups, num_groups))
    ids = to_numpy(groups)
    check_ids(ids, num_groups)
    return GroupOrder(groups, num_groups, gmm_numpy.sort_groups(ids, num_groups))


def fit_gmm(
    values: Array,
    groups: Array | GroupOrder | None = None,
    num_groups: int = 1,
    *,
    max_iter: int = 10,
    tol: float = 1e-2,
    reg_covar: float = 5e-4,
    init: Sequence[Array] | None = None,
) -> MixtureFit:
    """Fits a two-component 1-D Gaussian mixture to the values of each group by EM (DivideMix's cleaner; CPC, Alg. 1).

    values: (N,) floating, finite; NumPy, torch or CuPy. A list or a Series counts as NumPy. groups: (N,) integer in
    [0, num_groups), in any order, of the same kind or a list or Series; or the result of ``order_groups``. A
    categorical Series stands for its codes. None: one group of all (num_groups must be 1). max_iter: 1 or
    more. tol: stop when the mean log-likelihood moves by less, 0 or more. reg_covar: added to every variance, 0 or
    more. init: means (G, 2), variances (G, 2) and weights (G, 2, rows summing to 1) to start from. Rows of groups
    that cannot be fitted are not checked. None: 2-means of each group, deterministic.

    A group of fewer than 8 samples or of variance below 1e-12 is not fitted. Neither is one whose component collapses
    to no variance (reg_covar 0). The same input gives bit-identical results; in main memory, in any order of samples.
    ValueError: wrong kinds, shapes, dtypes; NaN or infinite values and group ids out of range, with the first
    positions.

    >>> losses = np.array([0.1, 0.2, 0.1, 0.15, 0.12, 0.9, 0.8, 0.95, 0.85])
    >>> fit_gmm(losses).clean_probability(losses).round()
    array([1., 1., 1., 1., 1., 0., 0., 0., 0.])
    """
    if isinstance(groups, GroupOrder) and num_groups == 1:
        num_groups = groups.num_groups
    num_groups, max_iter = as_integer("num_groups", num_groups), as_integer("max_iter", max_iter)
    tol, reg_covar = as_number("tol", tol), as_number("reg_covar", reg_covar)
    values = as_array("values", values)
    ids = _ids(groups, num_groups, values)
    check_forms(values, ids, num_groups)
    order = groups.order if isinstance(groups, GroupOrder) else None
    if init is not None:
        init = [part if library(part) else _beside(values, as_array("init", part)) for part in init]
        check_init_forms(init, num_groups, values)
    if not gmm_cupy.takes(values):
        return _fit_in_memory(values, ids, num_groups, order, init, (max_iter, tol, reg_covar))
    arrays, problems = gmm_cupy.fit_on_device(values, ids, num_groups, order, init, max_iter, tol, reg_covar)
    if problems.values or problems.groups:
        refuse(values, ids, num_groups)
    if problems.start and init is not None:
        group = problems.start - 1
        check_start(MixtureParams(*(to_numpy(part)[group : group + 1] for part in init)), np.array([group]))
    return MixtureFit(*arrays)


def fit_gmm_by_sums(
    values: Array,
    groups: Array,
    num_groups: int,
    reduce: Reduce,
    *,
    max_iter: int = 10,
    tol: float = 1e-2,
    reg_covar: float = 5e-4,
) -> MixtureFit:
    """``fit_gmm`` of groups whose values are spread over several processes; every process must call.

    values: (n,) this process's own, n >= 0. groups: (n,) their group ids. reduce: sums and maxima over the processes.
    An iteration reduces seven numbers per group. The 2-means start reduces a histogram of 255 counts per group, then
    two numbers per group and step. Every process returns the same fit, computed on the CPU. It differs from a fit of
    all values by the order of summation; with one process it is bit-identical.
    """
    num_groups = as_integer("num_groups", num_groups)
    check_forms(values, groups, num_groups)
    return _fit_in_memory(values, groups, num_groups, None, None, (max_iter, tol, reg_covar), reduce)


def _fit_in_memory(
    values: Array,
    groups: Array | None,
    num_groups: int,
    order: tuple[npt.NDArray[Any], gmm_numpy.Ints] | None,
    init: Sequence[Array] | None,
    limits: tuple[int, float, float],
    reduce: Reduce = ALONE,
) -> MixtureFit:
    numbers, ids = checked(values, groups, num_groups)
    if order is None and ids is not None:
        order = gmm_numpy.sort_groups(ids, num_groups)
    ordered, counts = gmm_numpy.sort_values(numbers, order)
    totals = reduce.total(counts.astype(np.float64)).astype(np.int64)
    fitted = totals > 0
    segments = Segments(ordered.astype(np.float64, copy=False), counts, totals).pick(fitted)
    keep = gmm_numpy.fittable(segments, reduce)
    fitted[fitted] = keep
    segments = segments.pick(keep)
    if init is None:
        start = gmm_numpy.two_means(segments, limits[2], reduce)
    else:
        start = MixtureParams(*(to_numpy(part).astype(np.float64) for part in init)).rows(fitted)
        check_start(start, np.flatnonzero(fitted))
    return _pack(gmm_numpy.run_em(segments, start, *limits, reduce), fitted, values)


def _pack(result: EmResult, fitted: npt.NDArray[np.bool_], values: Array) -> MixtureFit:
    """Results of the fitted groups among those of all groups, smaller mean first."""
    with np.errstate(invalid="ignore"):
        sound = np.isfinite(np.concatenate(result.mixture, axis=1)).all(axis=1)
        sound &= (result.mixture.variances > 0).all(axis=1)
    rows = np.flatnonzero(fitted)[sound]
    fitted = np.zeros_like(fitted)
    fitted[rows] = True
    order = np.argsort(result.mixture.means[sound], axis=1, kind="stable")
    parts = []
    for part in result.mixture:
        whole = np.full((len(fitted), 2), np.nan)
        whole[rows] = np.take_along_axis(part[sound], order, axis=1)
        parts.append(whole)
    lower_bound = np.full(len(fitted), np.nan)
    lower_bound[rows] = result.lower_bound[sound]
    n_iter = np.zeros(len(fitted), dtype=np.int64)
    n_iter[rows] = result.n_iter[sound]
    converged = np.zeros(len(fitted), dtype=np.bool_)
    converged[rows] = result.converged[sound]
    return MixtureFit(*(like(array, values) for array in (*parts, lower_bound, n_iter, converged, fitted)))


def _ids(groups: Array | GroupOrder | None, num_groups: int, values: Array) -> Array | None:
    if groups is None or library(groups):
        return None if groups is None else as_array("groups", groups)
    if not isinstance(groups, GroupOrder):
        return _beside(values, as_array("groups", groups))
    if groups.num_groups != num_groups:
        raise ValueError(f"num_groups: expected {groups.num_groups} as the groups were ordered, got {num_groups}")
    return groups.groups


def _beside(values: Array, array: Array) -> Array:
    """What was a list or a Series as a tensor where the values are one; arrays of other kinds as they are."""
    is_tensor = library(values) == "torch" and library(array) == "numpy"
    return torch.tensor(array, device=values.device) if is_tensor else array
