"""The GMM cleaner: a label is clean when its loss belongs to the component with the smaller mean (DivideMix)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcpc.cleaner.gmm_ranks import fit_gmm_over_ranks
from fastcpc.distributed import Shard
from fastcpc.kernels import GroupOrder, MixtureFit, fit_gmm

Fit = Callable[[Tensor, Tensor | GroupOrder, int], MixtureFit]
"""Values (N,), their groups (int64 (N,) in [0, G), or sorted) and G, to a mixture a group; all N are on every rank."""


def fit_of(mixture: str, shard: Shard) -> Fit:
    """How mixtures are fitted. mixture: ``parallel.mixture``. shard: which of the N values this rank does its part for
    when they are summed; every rank must call the fit then."""
    if mixture == "gathered":
        return fit_gmm

    def summed(values_N: Tensor, groups_N: Tensor | GroupOrder, num_groups: int) -> MixtureFit:
        labels_N: Any = groups_N.groups if isinstance(groups_N, GroupOrder) else groups_N
        rows = shard.rows.to(values_N.device)
        return fit_gmm_over_ranks(values_N[rows], labels_N[rows], num_groups)

    return summed


@dataclass(frozen=True)
class GmmPosterior:
    """clean_prob_N: (N,) float32 in [0, 1], q(z' = 0). fallback_classes: classes that took the class-agnostic
    posterior. fitted: False where not even the class-agnostic mixture could be fitted (constant losses)."""

    clean_prob_N: Tensor
    fallback_classes: tuple[int, ...]
    fitted: bool


def agnostic_posterior(loss_N: Tensor, fit_mixtures: Fit = fit_gmm) -> GmmPosterior:
    """One mixture for all samples. loss_N: (N,) floating, normalised."""
    groups = torch.zeros(len(loss_N), dtype=torch.int64, device=loss_N.device)
    fit = fit_mixtures(loss_N, groups, 1)
    if not bool(fit.fitted[0]):
        return GmmPosterior(torch.zeros_like(loss_N, dtype=torch.float32), (), fitted=False)
    return GmmPosterior(fit.clean_probability(loss_N, groups).float(), (), fitted=True)


def aware_posterior(
    loss_N: Tensor,
    labels_N: Tensor,
    num_classes: int,
    order: GroupOrder | None = None,
    fit_mixtures: Fit = fit_gmm,
) -> GmmPosterior:
    """One mixture for each given label, on that label's samples.

    A class that is too small or whose losses are constant takes the class-agnostic posterior.
    loss_N: (N,) floating, normalised. labels_N: (N,) int64 in [0, num_classes). order: what ``order_groups`` made of
    the labels, which never change; None: they are sorted here.
    """
    fit = fit_mixtures(loss_N, labels_N if order is None else order, num_classes)
    unfitted_K = ~fit.fitted
    present_K = torch.bincount(labels_N, minlength=num_classes) > 0
    fallback = tuple(torch.nonzero(unfitted_K & present_K).flatten().tolist())
    if not fallback:
        return GmmPosterior(fit.clean_probability(loss_N, labels_N).float(), (), fitted=True)
    agnostic = agnostic_posterior(loss_N, fit_mixtures)
    aware_N = fit.clean_probability(loss_N, labels_N).float()
    clean_prob_N = torch.where(unfitted_K[labels_N], agnostic.clean_prob_N, aware_N)
    return GmmPosterior(clean_prob_N, fallback, agnostic.fitted)


def gmm_posterior(
    kind: str,
    loss_N: Tensor,
    labels_N: Tensor,
    num_classes: int,
    order: GroupOrder | None = None,
    fit_mixtures: Fit = fit_gmm,
) -> GmmPosterior:
    """The posterior that a cleaner of this kind (``gmm_agn``, ``cpc_awr``, ...) is built on."""
    if kind.endswith("_awr"):
        return aware_posterior(loss_N, labels_N, num_classes, order, fit_mixtures)
    return agnostic_posterior(loss_N, fit_mixtures)
