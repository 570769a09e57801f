"""How many labels are wrong, with intervals, and whether there is evidence that any are.

Confident samples decide about evidence. Where classes overlap, a correct label can look wrong, but the samples that the
heads are most sure of keep their labels. If labels are wrong, a share of these confident samples disagrees as well.
"""

from dataclasses import dataclass

import numpy as np

from fastcpc.arrays import Floats, Ints
from fastcpc.auditing.confident import ConfidentLabels

MIN_DISAGREEMENT = 0.004  # share of confident samples with another label that counts as evidence
PAIRED, CLEARLY_PAIRED = 0.25, 0.35  # largest confusion of two classes, from where on class shares are solved
NORMAL_90 = 1.645
MODEL_ERROR = 0.02  # of the estimated rate, beyond sampling and differences between rounds
RELATIVE_MODEL_ERROR = 0.08


@dataclass(frozen=True)
class NoiseEstimate:
    """rate: share of wrong labels; interval: about 90 %. class_rate_K, class_interval_K2: of the labels of each class.

    has_evidence: whether the labels contradict the hypothesis that all are correct.
    """

    rate: float
    interval: tuple[float, float]
    class_rate_K: Floats
    class_interval_K2: Floats
    has_evidence: bool


def estimate_noise(own_N: Floats, given_N: Ints, confident: ConfidentLabels) -> NoiseEstimate:
    """The rate is that of the confident samples. own_N: (N,) posterior of the given labels, for the rates per class.

    Where two classes are mistaken for each other, predictions give the mistaken classes too little weight. There the
    rate with ``class_shares`` as weights counts, if it is larger: of few samples, these shares are uncertain. The
    interval covers the rates of both rounds and the rate that is used.
    """
    wrong_N = 1.0 - own_N
    posterior_rate = float(wrong_N.mean())
    weight = (confident.largest_confusion - PAIRED) / (CLEARLY_PAIRED - PAIRED)
    weight = min(max(weight, 0.0), 1.0)
    rate = (1 - weight) * confident.rate + weight * max(confident.rate, confident.solved_rate)
    half = _half_width(rate, confident.num)
    has_evidence = _lower_bound(confident) > MIN_DISAGREEMENT
    low = max(min(*confident.rates, rate) - half, 0.0) if has_evidence else 0.0
    high = min(max(*confident.rates, rate) + half, 1.0)
    scale = min(rate / max(posterior_rate, 1e-12), 1.0)
    class_rate_K, class_interval_K2 = _per_class(wrong_N * scale, given_N, len(confident.matrix_KK))
    if not has_evidence:
        class_interval_K2[:, 0] = 0.0
    return NoiseEstimate(rate, (low, high), class_rate_K, class_interval_K2, has_evidence)


def _lower_bound(confident: ConfidentLabels) -> float:
    """Of the share of confident samples whose label is not the predicted class, 95 %."""
    share, num = confident.disagreement, max(confident.num, 1)
    return share - NORMAL_90 * float(np.sqrt(max(share, 1 / num) / num))


def _half_width(rate: float, num: int) -> float:
    """Half of the interval: sampling of the samples that were counted, and the error of the model."""
    sampling = NORMAL_90 * float(np.sqrt(rate * (1 - rate) / max(num, 1)))
    return float(np.hypot(sampling, MODEL_ERROR + RELATIVE_MODEL_ERROR * rate))


def _per_class(wrong_N: Floats, given_N: Ints, num_classes: int) -> tuple[Floats, Floats]:
    """Share of wrong labels among the given labels of each class (K,), and intervals (K, 2); 0 to 1 without labels."""
    count_K = np.bincount(given_N, minlength=num_classes)
    rate_K = np.bincount(given_N, wrong_N, num_classes) / np.maximum(count_K, 1)
    half_K = [_half_width(rate, int(n)) for rate, n in zip(rate_K, count_K, strict=True)]
    bounds_K2 = np.stack([rate_K - half_K, rate_K + half_K], 1).clip(0.0, 1.0)
    bounds_K2[count_K == 0] = 0.0, 1.0
    return rate_K, bounds_K2
