"""The label score: how much more likely the given label is than all others; and the suspects by it.

The confusion matrix helps to rank where classes are mistaken for each other. It harms where labels are wrong at random.
So its influence grows with its structure. Heads that learned from cleaned labels rank better where classes are
mistaken, and where many labels are wrong. Where few labels are wrong at random, the geometric mean with the first heads
ranks better.
"""

import numpy as np
import torch
from torch import Tensor

from fastcpc.arrays import Bools, Floats, Ints
from fastcpc.auditing.confident import ConfidentLabels

RANDOM, MISTAKEN = 0.012, 0.03  # structure of the confusion up to which, and from which, labels count as such
AT_RANDOM, AT_MISTAKEN = 1.0, 0.001  # added to the confusion matrix there; 1 is almost the probabilities alone
OF_FIRST = 0.4  # weight of the log probabilities of the first heads, where few labels are wrong at random
FEW, MANY = 0.2, 0.5  # noise rate up to which the mean with the first heads is used, and from which the last heads are
SCALE = 4.0  # divides the log odds, so that the score does not round to 1
SMALLEST = 1e-12  # probability
CHUNK = 2**20  # numbers of the evidence in memory at a time


def label_score(first_NK: Tensor, last_NK: Tensor, confident: ConfidentLabels, given_N: Tensor) -> Tensor:
    """Score in [0, 1] per sample, 1 is good, (N,) float64. first_NK, last_NK: (N, K) of the two rounds, out of fold.

    With a_i[k] = w log p'_i[k] + (1 - w) log p_i[k] + log(T[k, y_i] + e), p' of the first and p of the last round:
    sigmoid((a_i[y_i] - logsumexp of the other a_i[k]) / SCALE).
    """
    mistaken = min(max((confident.structure - RANDOM) / (MISTAKEN - RANDOM), 0.0), 1.0)
    few = min(max((MANY - confident.rate) / (MANY - FEW), 0.0), 1.0)
    smoothing, of_first = AT_RANDOM * (AT_MISTAKEN / AT_RANDOM) ** mistaken, OF_FIRST * few * (1 - mistaken)
    weight_JK = (torch.from_numpy(confident.matrix_KK) + smoothing).log().T.contiguous()
    score_N, size = torch.empty(len(given_N), dtype=torch.float64), max(1, CHUNK // last_NK.shape[1])
    for start in range(0, len(given_N), size):
        part = slice(start, start + size)
        evidence_nK = weight_JK[given_N[part]]
        for weight, prob_NK in ((of_first, first_NK), (1 - of_first, last_NK)):
            if weight:
                evidence_nK += prob_NK[part].double().clamp_min(SMALLEST).log_().mul_(weight)
        own_n = evidence_nK.gather(1, given_N[part, None])[:, 0]
        other_n = evidence_nK.scatter_(1, given_N[part, None], -torch.inf).logsumexp(1)
        score_N[part] = torch.sigmoid((own_n - other_n) / SCALE)
    return score_N


def find_suspects(score_N: Floats, predicted_N: Ints, given_N: Ints, rate: float) -> Bools:
    """The samples whose suggestion differs from the given label, among the ``rate`` of all with the lowest scores."""
    is_low_N = np.zeros(len(score_N), bool)
    is_low_N[np.argsort(score_N, kind="stable")[: round(rate * len(score_N))]] = True
    return np.asarray(is_low_N & (predicted_N != given_N))
