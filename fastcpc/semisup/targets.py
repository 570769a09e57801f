"""Targets of the semi-supervised step: guessed for unlabelled samples, refined for labelled ones.

Source: DivideMix (Li et al. 2020), section 3.2, eqs. 3 to 6, as CPC takes it over. All in float32, also for
half-precision logits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def sharpen(prob_BK: Tensor, temperature: float) -> Tensor:
    """Raise probabilities to the power 1/T and scale every row back to sum 1.

    prob_BK: (B, K) floating, rows that sum to 1; temperature: T > 0, 1 leaves the rows as they are.
    Returns (B, K) of the same type. Source: DivideMix, eq. 6.
    """
    # Relative to the largest entry, so that no power underflows to a row of zeros, however small T is.
    power_BK = (prob_BK / prob_BK.amax(dim=1, keepdim=True)) ** (1.0 / temperature)
    return power_BK / power_BK.sum(dim=1, keepdim=True)


def mean_softmax(logits: Sequence[Tensor]) -> Tensor:
    """Average the softmax of several predictions of the same samples.

    logits: at least one (B, K) floating. Returns (B, K) float32 (float64 where the logits are).
    """
    total_BK = _softmax(logits[0])
    for logits_BK in logits[1:]:
        total_BK = total_BK + _softmax(logits_BK)
    return total_BK / len(logits)


def co_guess(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Guess the targets of unlabelled samples from several predictions of them.

    logits: (B, K) floating each, of both networks on both weak views; temperature: T > 0.
    Returns (B, K) float32. Source: DivideMix, section 3.2 (co-guessing).
    """
    return sharpen(mean_softmax(logits), temperature)


def co_refine(
    labels_B: Tensor, clean_prob_B: Tensor, logits: Sequence[Tensor], temperature: float, num_classes: int
) -> Tensor:
    """Mix the given labels of labelled samples with the network's own predictions of them.

    labels_B: (B,) int64 in [0, K). clean_prob_B: (B,) floating in [0, 1], the weight of the given label.
    logits: (B, K) floating each, of the own network on both weak views; temperature: T > 0; num_classes: K.
    Returns (B, K) float32. Source: DivideMix, eqs. 4 and 5 (co-refinement).
    """
    prob_BK = mean_softmax(logits)
    # A comparison, not one_hot: that one may look at the labels' values, which waits for the device.
    classes_K = torch.arange(num_classes, device=labels_B.device)
    one_hot_BK = (labels_B.unsqueeze(1) == classes_K).to(prob_BK.dtype)
    trust_B1 = clean_prob_B.to(prob_BK.dtype).unsqueeze(1)
    return sharpen(trust_B1 * one_hot_BK + (1.0 - trust_B1) * prob_BK, temperature)


def _softmax(logits_BK: Tensor) -> Tensor:
    return torch.softmax(_at_least_float32(logits_BK), dim=1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
