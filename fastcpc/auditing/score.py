"""The label score: how much more likely the given label is than the best other class.

The confusion matrix helps to rank where classes are mistaken for each other. It harms where labels are wrong at random.
So its influence grows with its largest entry outside the diagonal.
"""

import torch
from torch import Tensor

STRUCTURE = 0.1  # largest confusion of two classes at which the smoothing is SMOOTHING
SMOOTHING = 0.03  # added to the confusion matrix
POWER = 3.0  # of the smoothing in the confusion
MAX_SMOOTHING = 1.0  # here the score is the margin of the probabilities, without the matrix
SCALE = 4.0  # divides the log odds, so that the score does not round to 1
SMALLEST = 1e-12  # probability


def label_score(prob_NK: Tensor, matrix_KK: Tensor, given_N: Tensor, *, is_low: bool) -> Tensor:
    """Score in [0, 1] per sample, 1 is good, (N,) float64.

    With a_i[k] = log p_i[k] + log(T[k, y_i] + e): sigmoid((a_i[y_i] - max of the other a_i[k]) / SCALE).
    prob_NK: (N, K) out of sample. matrix_KK: (K, K) T. is_low: few labels are wrong: the matrix is not used.
    """
    largest = float((matrix_KK - torch.diag(matrix_KK.diagonal())).max())
    smoothing = SMOOTHING * (STRUCTURE / max(largest, 1e-3)) ** POWER
    smoothing = MAX_SMOOTHING if is_low else min(smoothing, MAX_SMOOTHING)
    evidence_NK = prob_NK.double().clamp_min(SMALLEST).log() + (matrix_KK + smoothing).log().T[given_N]
    own_N = evidence_NK.gather(1, given_N[:, None])[:, 0]
    other_N = evidence_NK.scatter_(1, given_N[:, None], -torch.inf).amax(1)
    return ((own_N - other_N) / SCALE).sigmoid()
