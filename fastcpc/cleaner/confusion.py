"""The confusion cleaner: which class is labelled as which, by EM, and what that says about each given label.

One confusion matrix is estimated for all samples (Dawid and Skene, 1979, with one annotator). The network's softmax is
the prior of a sample. Unlike a mixture of losses, this needs no two groups. Where no labels are wrong, the matrix is
the identity, and the given labels keep their probability.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcpc.cleaner.base import Cleaner, CleanerInput, CleanerResult
from fastcpc.distributed import all_reduce_sum

SHARPNESS = 2.0  # power of the softmax: without it the matrix stays near the identity
TRAINED_SHARPNESS = 3.0  # of a network that trains on the given labels: they raise their own softmax
MAX_ITERATIONS = 100
TOLERANCE = 1e-4  # largest change of an entry of the matrix at which EM stops
CHUNK = 65536  # samples classified at a time
POSTERIOR_NUMBERS = 2**20  # of a posterior, computed at a time
SMALLEST = 1e-12  # probability of a class in the E step
CHECK_EVERY = 10  # iterations between two reads of the device
PRIOR = 1.0  # correct labels that are added to each class


@dataclass(frozen=True)
class ConfusionFit:
    """matrix_KK: (K, K) float64, row k: the probabilities of the given labels of true class k; rows sum to 1. n_iter:
    iterations of EM. sharpness: the power of the softmax."""

    matrix_KK: Tensor
    n_iter: int
    sharpness: float = SHARPNESS

    def posterior(self, prob_NK: Tensor, labels_N: Tensor) -> Tensor:
        """The probabilities of the true classes, (N, K) in the dtype of prob_NK; rows sum to 1.

        prob_NK, labels_N: as in ``fit_confusion``. Computes in float64, some samples at a time.
        """
        posterior_NK = torch.empty_like(prob_NK)
        for start, part_nK in self._posteriors(prob_NK, labels_N):
            posterior_NK[start : start + len(part_nK)] = part_nK
        return posterior_NK

    def clean_probability(self, prob_NK: Tensor, labels_N: Tensor) -> Tensor:
        """The posterior of the given labels, (N,) float64. prob_NK, labels_N: as in ``fit_confusion``."""
        clean_N = torch.empty(len(labels_N), dtype=torch.float64, device=prob_NK.device)
        for start, part_nK in self._posteriors(prob_NK, labels_N):
            rows = slice(start, start + len(part_nK))
            clean_N[rows] = part_nK.gather(1, labels_N[rows, None])[:, 0]
        return clean_N

    def _posteriors(self, prob_NK: Tensor, labels_N: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Parts of the posterior in float64, each with its first row."""
        column_KK, size = self.matrix_KK.T.contiguous(), max(1, POSTERIOR_NUMBERS // prob_NK.shape[1])
        for start in range(0, len(labels_N), size):
            part_nK = _sharpened(prob_NK[start : start + size], self.sharpness)
            part_nK *= column_KK[labels_N[start : start + size]]
            yield start, part_nK.div_(part_nK.sum(1, keepdim=True))


def fit_confusion(
    prob_NK: Tensor, labels_N: Tensor, *, sharpness: float = SHARPNESS, over_ranks: bool = False
) -> ConfusionFit:
    """Estimate the confusion matrix T from predictions and given labels, by EM.

    E step: q_i[k] ~ p_i[k]^sharpness T[k, y_i]. M step: T[k, j] ~ sum of q_i[k] over samples with y_i = j, plus PRIOR
    where j = k. prob_NK: (N, K) floating in [0, 1], best out of sample. labels_N: (N,) int64 in [0, K). over_ranks:
    whether the samples are this rank's, and T is of all ranks' samples; every rank must call.
    """
    num_classes = prob_NK.shape[1]
    identity_KK = torch.eye(num_classes, dtype=torch.float64, device=prob_NK.device)
    priors = _sharpened(prob_NK[labels_N.argsort(stable=True)], sharpness).split(
        torch.bincount(labels_N, minlength=num_classes).tolist()
    )
    matrix_KK = torch.ones_like(identity_KK)  # the first E step is the prior alone
    number = 0
    for number in range(1, MAX_ITERATIONS + 1):
        counts_JK = _expected_counts(priors, matrix_KK)
        if over_ranks:
            counts_JK = all_reduce_sum(counts_JK, "confusion")
        counts_KJ = counts_JK.T + PRIOR * identity_KK
        before_KK, matrix_KK = matrix_KK, counts_KJ / counts_KJ.sum(1, keepdim=True)
        if number % CHECK_EVERY == 0 and float((matrix_KK - before_KK).abs().max()) < TOLERANCE:
            break
    return ConfusionFit(matrix_KK, number, sharpness)


def _expected_counts(priors: Sequence[Tensor], matrix_KK: Tensor) -> Tensor:
    """(K, K) float64, row j: how many samples with given label j belong to each true class.

    priors: one (n_j, K) for each given label j. With p = priors[j] and t = T[:, j], row j is t * (p.T @ (1 / (p @ t))):
    two matrix-vector products, so that no posterior (N, K) is needed.
    """
    counts_JK = torch.zeros_like(matrix_KK)
    for prior_nK, column_K, count_K in zip(priors, matrix_KK.T.contiguous(), counts_JK, strict=True):
        count_K.addmv_(prior_nK.T, prior_nK.mv(column_K).reciprocal_()).mul_(column_K)
    return counts_JK


def _sharpened(prob_nK: Tensor, sharpness: float) -> Tensor:
    """Powers of probabilities as float64; at least a small number, so that a class is never ruled out."""
    return prob_nK.double().clamp_min(SMALLEST).pow_(sharpness)


class Confusion(Cleaner):
    """The clean probability of a label is the posterior of that class, given the network's softmax and the confusion
    matrix of all samples."""

    name = "confusion"

    def clean(self, data: CleanerInput) -> CleanerResult:
        """Fit the confusion matrix to this network's softmax of the kept features, without confirmed labels."""
        with torch.no_grad():
            device, num = data.labels_N.device, len(data.feat_nD)
            logits_nK = torch.cat(
                [
                    data.network.classify(data.feat_nD[i : i + CHUNK].to(device).float())
                    for i in range(0, max(num, 1), CHUNK)
                ]
            )
        own_n, is_part = data.own_labels_n, not data.shard.is_whole
        prob_nK, own_prob_n = logits_nK.double().softmax(1), torch.ones(len(own_n), device=own_n.device)
        open_m = slice(None) if data.confirmed_N is None else ~data.confirmed_N[data.shard.rows.to(own_n.device)]
        own_m = own_n[open_m]
        fit = fit_confusion(prob_nK[open_m], own_m, sharpness=TRAINED_SHARPNESS, over_ranks=is_part)
        own_prob_n[open_m] = fit.clean_probability(prob_nK[open_m], own_m).float()
        return CleanerResult(data.shard.gather(own_prob_n, "scores"))
