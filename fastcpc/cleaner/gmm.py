"""The mixture cleaner of DivideMix: labels with small losses are predicted clean.

The clean probability is the posterior of the component with the smaller mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastcpc.cleaner.base import Cleaner, CleanerInput, CleanerResult, class_list
from fastcpc.cleaner.confirmed import without_last
from fastcpc.distributed import Shard, all_gather, all_reduce_sum
from fastcpc.kernels import GroupOrder, MixtureFit, fit_gmm
from fastcpc.kernels.gmm_em import fit_gmm_by_sums
from fastcpc.kernels.gmm_numpy import Floats, Reduce


def fit_mixtures(
    values_N: Tensor, groups_N: Tensor | GroupOrder, num_groups: int, shard: Shard | None = None
) -> MixtureFit:
    """Fit a mixture per group; every rank has all N values and returns the same fit.

    groups_N: (N,) int64 in [0, num_groups), or sorted. shard: the values that this rank sorts and sums
    (``parallel.mixture=summed``; every rank must call). None: each rank fits all values by itself.
    """
    if shard is None:
        return fit_gmm(values_N, groups_N, num_groups)
    ids_N: Tensor = groups_N.groups if isinstance(groups_N, GroupOrder) else groups_N
    rows = shard.rows.to(values_N.device)
    return fit_gmm_by_sums(values_N[rows], ids_N[rows], num_groups, OVER_RANKS)


def _total(sums: Floats) -> Floats:
    return all_reduce_sum(torch.from_numpy(sums), "mixture").numpy()


def _largest(maxima: Floats) -> Floats:
    every = all_gather(torch.from_numpy(maxima), "mixture")
    return np.asarray(np.max([part.numpy() for part in every], axis=0))


OVER_RANKS = Reduce(_total, _largest)


@dataclass(frozen=True)
class GmmPosterior:
    """clean_prob_N: (N,) float32 in [0, 1], q(z' = 0). fits: the mixtures that were fitted, "agn" of all samples and
    "awr" per class. fallback_classes: classes that take the class-agnostic posterior. fitted: False where not even the
    class-agnostic mixture has a fit (constant losses)."""

    clean_prob_N: Tensor
    fits: Mapping[str, MixtureFit]
    fallback_classes: tuple[int, ...] = ()
    fitted: bool = True


def agnostic_posterior(loss_N: Tensor, shard: Shard | None = None, confirmed_N: Tensor | None = None) -> GmmPosterior:
    """One mixture for all samples. loss_N: (N,) floating, normalised. shard: as ``fit_mixtures``.

    confirmed_N: (N,) bool, samples whose losses are not fitted: they are a group whose fit is not used.
    """
    groups = torch.zeros(len(loss_N), dtype=torch.int64, device=loss_N.device)
    if confirmed_N is None:
        fit = fit_mixtures(loss_N, groups, 1, shard)
    else:
        fit = without_last(fit_mixtures(loss_N, groups.masked_fill(confirmed_N, 1), 2, shard))
    if not bool(fit.fitted[0]):
        return GmmPosterior(torch.zeros_like(loss_N, dtype=torch.float32), {"agn": fit}, fitted=False)
    return GmmPosterior(fit.clean_probability(loss_N, groups).float(), {"agn": fit})


def aware_posterior(
    loss_N: Tensor,
    labels_N: Tensor,
    num_classes: int,
    order: GroupOrder | None = None,
    shard: Shard | None = None,
    confirmed_N: Tensor | None = None,
) -> GmmPosterior:
    """One mixture per given label, on that label's samples.

    A class with too few samples or with constant losses takes the class-agnostic posterior.
    loss_N: (N,) floating, normalised. labels_N: (N,) int64 in [0, num_classes). order: ``order_groups`` of the labels,
    which never change; None: they are sorted here. shard: as ``fit_mixtures``. confirmed_N: as ``agnostic_posterior``.
    """
    if confirmed_N is None:
        fit = fit_mixtures(loss_N, labels_N if order is None else order, num_classes, shard)
    else:
        groups_N = labels_N.masked_fill(confirmed_N, num_classes)
        fit = without_last(fit_mixtures(loss_N, groups_N, num_classes + 1, shard))
    unfitted_K = ~fit.fitted
    undecided_M = labels_N if confirmed_N is None else labels_N[~confirmed_N]
    present_K = torch.bincount(undecided_M, minlength=num_classes) > 0
    fallback = tuple(torch.nonzero(unfitted_K & present_K).flatten().tolist())
    aware_N = fit.clean_probability(loss_N, labels_N).float()
    if not fallback:
        return GmmPosterior(aware_N, {"awr": fit})
    agnostic = agnostic_posterior(loss_N, shard, confirmed_N)
    clean_prob_N = torch.where(unfitted_K[labels_N], agnostic.clean_prob_N, aware_N)
    return GmmPosterior(clean_prob_N, {"awr": fit, **agnostic.fits}, fallback, agnostic.fitted)


@dataclass(frozen=True)
class Gmm(Cleaner):
    """The mixture cleaner, class-agnostic (``gmm_agn``) or with one mixture per given label (``gmm_awr``)."""

    per_class: bool
    name = "gmm"
    title = "mixture"
    uses_loss_history = True

    def clean(self, data: CleanerInput) -> CleanerResult:
        """The posterior of the network's own normalised losses; those of confirmed labels are not fitted."""
        confirmed_N = data.confirmed_N
        if confirmed_N is not None and bool(confirmed_N.all()):
            return CleanerResult(torch.ones_like(data.values_N))
        shard = data.shard if data.config.parallel.mixture == "summed" else None
        if self.per_class:
            posterior = aware_posterior(data.values_N, data.labels_N, data.num_classes, data.order, shard, confirmed_N)
        else:
            posterior = agnostic_posterior(data.values_N, shard, confirmed_N)
        notes: tuple[str, ...] = ()
        if posterior.fallback_classes:
            notes = (
                f"classes {class_list(posterior.fallback_classes)} have too few or constant losses for a mixture of "
                "their own; they take the one of all classes",
            )
        problem = "" if posterior.fitted else "the losses are all equal, so that no mixture can be fitted"
        return CleanerResult(posterior.clean_prob_N, problem, notes, posterior.fits)
