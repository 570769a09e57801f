"""The confusion cleaner: which class is labelled as which, by EM, and what that says about each given label.

One confusion matrix is estimated for all samples (Dawid and Skene, 1979, with one annotator). The network's softmax is
the prior of a sample. Unlike a mixture of losses, this needs no two groups. Where no labels are wrong, the matrix is
the identity, and the given labels keep their probability.
"""

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
CHECK_EVERY = 10  # iterations between two reads of the device
PRIOR = 1.0  # correct labels that are added to each class


@dataclass(frozen=True)
class ConfusionFit:
    """matrix_KK: (K, K) float64, row k: the probabilities of the given labels of true class k; rows sum to 1.
    posterior_NK: (N, K) float64, the probabilities of the true class; rows sum to 1. n_iter: iterations of EM."""

    matrix_KK: Tensor
    posterior_NK: Tensor
    n_iter: int


def fit_confusion(
    prob_NK: Tensor, labels_N: Tensor, *, sharpness: float = SHARPNESS, over_ranks: bool = False
) -> ConfusionFit:
    """Estimate the confusion matrix T and the true classes from predictions and given labels, by EM.

    E step: q_i[k] ~ p_i[k]^sharpness T[k, y_i]. M step: T[k, j] ~ sum of q_i[k] over samples with y_i = j, plus PRIOR
    where j = k. prob_NK: (N, K) floating in [0, 1], best out of sample. labels_N: (N,) int64 in [0, K). over_ranks:
    whether the samples are this rank's, and T is of all ranks' samples; every rank must call.
    """
    num_classes = prob_NK.shape[1]
    prior_NK = prob_NK.double().clamp_min(1e-12) ** sharpness
    identity_KK = torch.eye(num_classes, dtype=torch.float64, device=prob_NK.device)
    posterior_NK = prior_NK / prior_NK.sum(1, keepdim=True)
    matrix_KK = identity_KK
    number = 0
    for number in range(1, MAX_ITERATIONS + 1):
        counts_JK = torch.zeros_like(identity_KK).index_add_(0, labels_N, posterior_NK)
        if over_ranks:
            counts_JK = all_reduce_sum(counts_JK, "confusion")
        counts_KJ = counts_JK.T + PRIOR * identity_KK
        before_KK, matrix_KK = matrix_KK, counts_KJ / counts_KJ.sum(1, keepdim=True)
        torch.index_select(matrix_KK.T.contiguous(), 0, labels_N, out=posterior_NK)
        posterior_NK *= prior_NK
        posterior_NK /= posterior_NK.sum(1, keepdim=True)
        if number % CHECK_EVERY == 0 and float((matrix_KK - before_KK).abs().max()) < TOLERANCE:
            break
    return ConfusionFit(matrix_KK, posterior_NK, number)


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
        own_prob_n[open_m] = fit.posterior_NK.gather(1, own_m[:, None])[:, 0].float()
        return CleanerResult(data.shard.gather(own_prob_n, "scores"))
