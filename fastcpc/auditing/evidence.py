"""How many labels are wrong, with intervals, and whether there is evidence that any are.

Confident samples decide about evidence. Where classes overlap, a correct label can look wrong, but the samples that the
heads are most sure of keep their labels. If labels are wrong, a share of these confident samples disagrees as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fastcpc.arrays import Floats, Ints

CONFIDENT_SHARE = 0.3  # of each predicted class: its most confident samples
MIN_DISAGREEMENT = 0.008  # share of confident samples with another label that counts as evidence
LOW_RATE = 0.06  # below this estimate, overlap of classes explains many of the labels that look wrong
LOW_THRESHOLD = 0.1  # at low noise only labels with a smaller posterior are suspects
STRICT_THRESHOLD = 0.05  # the same without evidence
NORMAL_90 = 1.645
MODEL_ERROR = 0.015  # of the estimated rate, beyond sampling and differences between rounds
RELATIVE_MODEL_ERROR = 0.1


@dataclass(frozen=True)
class NoiseEstimate:
    """rate: share of wrong labels; interval: about 90 %. class_rate_K, class_interval_K2: of the labels of each class.

    has_evidence: whether the labels contradict the hypothesis that all are correct. threshold: a label is a suspect
    only if its posterior is smaller. disagreement: share of confident samples whose label differs.
    is_low: whether few labels are wrong.
    """

    rate: float
    interval: tuple[float, float]
    class_rate_K: Floats
    class_interval_K2: Floats
    has_evidence: bool
    threshold: float
    disagreement: float
    is_low: bool


def posterior_noise_rate(posterior_NK: Tensor, given_N: Tensor) -> float:
    """1 - mean posterior of the given labels: the expected share of wrong labels."""
    return 1.0 - float(posterior_NK.gather(1, given_N[:, None]).mean())


def estimate_noise(posteriors: Sequence[Tensor], first_NK: Tensor, given_N: Ints) -> NoiseEstimate:
    """The estimate from the posteriors (N, K) of all rounds and the out-of-fold probabilities (N, K) of the first.

    From ``LOW_RATE`` on, the rate is that of the last posterior. Below, or without evidence, it is the disagreement of
    the confident samples, and the posterior's rate is the upper end of the interval.
    """
    wrong_RN = np.stack([1.0 - post_NK.numpy()[np.arange(len(given_N)), given_N] for post_NK in posteriors[-2:]])
    rate, spread = float(wrong_RN[-1].mean()), float(np.ptp(wrong_RN.mean(1)))
    disagreement, bound = confident_disagreement(first_NK.numpy(), given_N)
    has_evidence, is_low = bound > MIN_DISAGREEMENT, rate < LOW_RATE
    high = min(rate + _half_width(rate, len(given_N), spread), 1.0)
    low, scale = max(2 * rate - high, 0.0), 1.0
    if is_low or not has_evidence:
        scale = min(disagreement / max(rate, 1e-12), 1.0)
        rate, low = min(disagreement, rate), min(bound, rate) if has_evidence else 0.0
    class_rate_K, class_interval_K2 = _per_class(wrong_RN[-1] * scale, given_N, first_NK.shape[1], spread)
    if not has_evidence:
        class_interval_K2[:, 0] = 0.0
    threshold = LOW_THRESHOLD if is_low else 1.0
    return NoiseEstimate(
        rate=rate,
        interval=(float(low), float(high)),
        class_rate_K=class_rate_K,
        class_interval_K2=class_interval_K2,
        has_evidence=has_evidence,
        threshold=threshold if has_evidence else STRICT_THRESHOLD,
        disagreement=disagreement,
        is_low=is_low,
    )


def _half_width(rate: float, num: int, spread: float) -> float:
    """Half of the interval: sampling, and the error of the model with the difference between the last two rounds."""
    sampling = NORMAL_90 * float(np.sqrt(rate * (1 - rate) / num))
    return float(np.hypot(sampling, spread + MODEL_ERROR + RELATIVE_MODEL_ERROR * rate))


def _per_class(wrong_N: Floats, given_N: Ints, num_classes: int, spread: float) -> tuple[Floats, Floats]:
    """Share of wrong labels among the given labels of each class (K,), and intervals (K, 2); 0 to 1 without labels."""
    count_K = np.bincount(given_N, minlength=num_classes)
    rate_K = np.bincount(given_N, wrong_N, num_classes) / np.maximum(count_K, 1)
    half_K = [_half_width(rate, max(int(n), 1), spread) for rate, n in zip(rate_K, count_K, strict=True)]
    bounds_K2 = np.stack([rate_K - half_K, rate_K + half_K], 1).clip(0.0, 1.0)
    bounds_K2[count_K == 0] = 0.0, 1.0
    return rate_K, bounds_K2


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
