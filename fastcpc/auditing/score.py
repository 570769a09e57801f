"""The label score: how much more likely the given label is than all others; and the suspects by it.

The confusion matrix helps to rank where classes are mistaken for each other. It harms where labels are wrong at random.
So its influence grows with its largest entry outside the diagonal. Heads that learned from cleaned labels rank better
where classes are mistaken. Where labels are wrong at random, the mean with the first heads ranks better.
"""

import numpy as np
import torch
from torch import Tensor

from fastcpc.arrays import Bools, Floats, Ints
from fastcpc.auditing.confident import ConfidentLabels

STRUCTURE = 0.15  # largest confusion of two classes at which the smoothing is SMOOTHING
SMOOTHING = 0.03  # added to the confusion matrix
POWER = 2.0  # of the smoothing in the confusion
MAX_SMOOTHING = 1.0  # here the score is almost that of the probabilities alone
RANDOM, MISTAKEN = 0.1, 0.15  # largest confusion up to which the mean is used, and from which the last heads are
SCALE = 4.0  # divides the log odds, so that the score does not round to 1
SMALLEST = 1e-12  # probability


def label_score(first_NK: Tensor, last_NK: Tensor, confident: ConfidentLabels, given_N: Tensor) -> Tensor:
    """Score in [0, 1] per sample, 1 is good, (N,) float64. first_NK, last_NK: (N, K) of the two rounds, out of fold.

    With a_i[k] = log p_i[k] + log(T[k, y_i] + e): sigmoid((a_i[y_i] - logsumexp of the other a_i[k]) / SCALE).
    """
    largest = confident.largest_confusion
    smoothing = min(SMOOTHING * (STRUCTURE / max(largest, 1e-3)) ** POWER, MAX_SMOOTHING)
    of_first = 0.5 * min(max((MISTAKEN - largest) / (MISTAKEN - RANDOM), 0.0), 1.0)
    prob_NK = of_first * first_NK.double() + (1 - of_first) * last_NK.double()
    matrix_KK = torch.from_numpy(confident.matrix_KK)
    evidence_NK: Tensor = prob_NK.clamp_min(SMALLEST).log() + (matrix_KK + smoothing).log().T[given_N]
    own_N = evidence_NK.gather(1, given_N[:, None])[:, 0]
    other_N = evidence_NK.scatter_(1, given_N[:, None], -torch.inf).logsumexp(1)
    return torch.sigmoid((own_N - other_N) / SCALE)


def find_suspects(score_N: Floats, predicted_N: Ints, given_N: Ints, rate: float) -> Bools:
    """The samples whose suggestion differs from the given label, among the ``rate`` of all with the lowest scores."""
    is_low_N = np.zeros(len(score_N), bool)
    is_low_N[np.argsort(score_N, kind="stable")[: round(rate * len(score_N))]] = True
    return np.asarray(is_low_N & (predicted_N != given_N))
