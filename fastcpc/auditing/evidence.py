"""How many labels are wrong, with intervals, and whether there is evidence that any are.

Confident samples decide about evidence. Where classes overlap, a correct label can look wrong, but the samples that the
heads are most sure of keep their labels. If labels are wrong, a share of these confident samples disagrees as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fastcpc.arrays import Floats, Ints

CONFIDENT_SHARE = 0.5  # of each predicted class: its most confident samples
MIN_DISAGREEMENT = 0.004  # share of confident samples with another label that counts as evidence
STRICT_THRESHOLD = 0.1  # without evidence, only labels with a smaller posterior are suspects
NORMAL_90 = 1.645
MODEL_ERROR = 0.01  # of the estimated rate, beyond sampling and differences between rounds
RELATIVE_MODEL_ERROR = 0.05


@dataclass(frozen=True)
class NoiseEstimate:
    """rate: share of wrong labels; interval: about 90 %. class_rate_K, class_interval_K2: of the labels of each class.

    has_evidence: whether the labels contradict the hypothesis that all are correct. threshold: a label is a suspect
    only if its posterior is smaller. disagreement: share of confident samples whose label differs.
    """

    rate: float
    interval: tuple[float, float]
    class_rate_K: Floats
    class_interval_K2: Floats
    has_evidence: bool
    threshold: float
    disagreement: float


def estimate_noise(posteriors: Sequence[Tensor], first_NK: Tensor, given_N: Ints) -> NoiseEstimate:
    """The estimate from the posteriors (N, K) of all rounds and the out-of-fold probabilities (N, K) of the first."""
    rows_N = np.arange(len(given_N))
    wrong_RN = np.stack([1.0 - post_NK.numpy()[rows_N, given_N] for post_NK in posteriors[-2:]])
    wrong_N = wrong_RN[-1]
    num_classes = first_NK.shape[1]
    disagreement, bound = confident_disagreement(first_NK.numpy(), given_N)
    has_evidence = bound > MIN_DISAGREEMENT
    rate, spread = float(wrong_N.mean()), float(np.ptp(wrong_RN.mean(1)))
    half = np.hypot(
        NORMAL_90 * np.sqrt(rate * (1 - rate) / len(given_N)), spread + MODEL_ERROR + RELATIVE_MODEL_ERROR * rate
    )
    count_K = np.maximum(np.bincount(given_N, minlength=num_classes), 1)
    class_rate_K = np.bincount(given_N, wrong_N, num_classes) / count_K
    class_half_K = np.hypot(NORMAL_90 * np.sqrt(class_rate_K * (1 - class_rate_K) / count_K), half)
    bounds_K2 = np.stack([class_rate_K - class_half_K, class_rate_K + class_half_K], 1).clip(0.0, 1.0)
    low, high = max(rate - half, 0.0), min(rate + half, 1.0)
    if not has_evidence:
        low, bounds_K2[:, 0] = 0.0, 0.0
    return NoiseEstimate(
        rate=rate,
        interval=(float(low), float(high)),
        class_rate_K=class_rate_K,
        class_interval_K2=bounds_K2,
        has_evidence=has_evidence,
        threshold=1.0 if has_evidence else STRICT_THRESHOLD,
        disagreement=disagreement,
    )


def confident_disagreement(prob_NK: Floats, given_N: Ints) -> tuple[float, float]:
    """Share of confident samples whose given label is not the predicted class, and its lower 95 % bound.

    Confident: the ``CONFIDENT_SHARE`` of each predicted class with the highest probability, out of fold.
    """
    confidence_N, predicted_N = prob_NK.max(1), prob_NK.argmax(1)
    order_N = np.lexsort((-confidence_N, predicted_N))
    count_K = np.bincount(predicted_N, minlength=prob_NK.shape[1])
    rank_N = np.arange(len(order_N)) - np.repeat(np.cumsum(count_K) - count_K, count_K)
    kept = order_N[rank_N < np.repeat(np.ceil(count_K * CONFIDENT_SHARE), count_K)]
    total, differ = len(kept), int((predicted_N[kept] != given_N[kept]).sum())
    share = differ / max(total, 1)
    return share, max(share - NORMAL_90 * float(np.sqrt(max(share, 1 / max(total, 1)) / max(total, 1))), 0.0)
