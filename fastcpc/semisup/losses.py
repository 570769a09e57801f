"""Losses of warm-up and of the semi-supervised step, each a 0-d tensor, computed in float32.

Source: DivideMix (Li et al. 2020), eqs. 9 to 11 and its published code, as CPC takes them over.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.distributed import all_gather, has_group, world_size


def labelled_loss(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Cross entropy with soft targets, -mean_i sum_k t_ik log p_ik (DivideMix, eq. 9).

    logits_BK: (B, K) floating; target_BK: (B, K) floating, rows that sum to 1. Returns a 0-d tensor.
    """
    return -(target_BK * _log_softmax(logits_BK)).sum(dim=1).mean()


def unlabelled_loss(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Mean squared difference of prediction and target over all B*K elements (DivideMix, eq. 10, as its code has it).

    logits_BK: (B, K) floating; target_BK: (B, K) floating, rows that sum to 1. Returns a 0-d tensor.
    """
    return (_log_softmax(logits_BK).exp() - target_BK).square().mean()


def prior_penalty(logits_BK: Tensor) -> Tensor:
    """Divergence of the batch's mean prediction from uniform classes, sum_k pi_k log(pi_k / mean_i p_ik), pi_k = 1/K.

    logits_BK: (B, K) floating. Returns a 0-d tensor, 0 or more. Source: DivideMix, eq. 11. With several ranks,
    each with as many rows: the penalty of all rows together, the same on each rank. The mean of the ranks' gradients is
    the gradient of the whole.
    """
    num_samples, num_classes = logits_BK.shape
    # The logarithm of a mean of softmaxes, never the softmaxes: a class that nobody predicts stays finite.
    log_sum_K = torch.logsumexp(_log_softmax(logits_BK), dim=0)
    if has_group():
        log_sum_K = _over_ranks(log_sum_K)
    log_mean_K = log_sum_K - math.log(num_samples * world_size())
    return -math.log(num_classes) - log_mean_K.mean()


def _over_ranks(log_sum_K: Tensor) -> Tensor:
    """log of the sum over ranks of exp. The derivative by a rank's own part is its share of that sum; times the number
    of ranks, because gradients are averaged over them."""
    own_K = log_sum_K.detach()
    total_K = torch.logsumexp(torch.stack(all_gather(own_K, "prior")), dim=0)
    return total_K + (own_K - total_K).exp() * world_size() * (log_sum_K - own_K)


def confidence_penalty(logits_BK: Tensor) -> Tensor:
    """Negative entropy of the predictions, mean_i sum_k p_ik log p_ik: high where predictions are confident.

    logits_BK: (B, K) floating. Returns a 0-d tensor in [-log K, 0]. Source: DivideMix, eq. 2.
    """
    log_prob_BK = _log_softmax(logits_BK)
    return (log_prob_BK.exp() * log_prob_BK).sum(dim=1).mean()


def warmup_loss(logits_BK: Tensor, labels_B: Tensor, penalty: bool) -> Tensor:
    """Cross entropy with the given labels, with the confidence penalty where the noise is not symmetric.

    logits_BK: (B, K) floating; labels_B: (B,) int64 in [0, K); penalty: whether to add it, with weight 1.
    Returns a 0-d tensor.
    """
    loss = F.nll_loss(_log_softmax(logits_BK), labels_B)
    return loss + confidence_penalty(logits_BK) if penalty else loss


def ramp(epoch: float, warmup_epochs: int, rampup_epochs: int) -> float:
    """Share of lambda_u that counts, rising linearly from 0 after the warm-up to 1.

    epoch: position in the run with its fraction, from 0; warmup_epochs: 0 or more; rampup_epochs: 1 or more.
    Returns a number in [0, 1]. Source: DivideMix's published code.
    """
    return min(max((epoch - warmup_epochs) / rampup_epochs, 0.0), 1.0)


def _log_softmax(logits_BK: Tensor) -> Tensor:
    wide_BK = logits_BK if logits_BK.dtype == torch.float64 else logits_BK.float()
    return torch.log_softmax(wide_BK, dim=1)
