"""The labels of confident samples: how often each class gets each given label, without the overlap of classes.

Where classes overlap, a head mistakes one class for another, and a correct label looks wrong. The samples that the
heads are most sure of are not in the overlap. Where their given labels contradict the heads, the labels are wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcpc.arrays import Floats, Ints

SHARE = 0.1  # of each predicted class: its most confident samples
MIN_SAMPLES = 50  # of each predicted class, where half of it has as many
FEW_CLASSES, FALLING = 10, 0.85  # with more classes, more overlap: the rate is of a share that falls with this power
PRIOR = 20.0  # samples per class that are added to the counts, with labels wrong at random
SHARE_ITERATIONS = 100  # of EM for the class shares


@dataclass(frozen=True)
class ConfidentLabels:
    """matrix_KK: (K, K), row k: the share of given labels of the confident samples of predicted class k; rows sum to 1.

    rates: estimated share of wrong labels of all samples, by each array of probabilities; the weight of a class is the
    share of its predictions. disagreement: share of all confident samples whose given label is not the predicted class.
    num: the number of these samples. solved_rate: the mean of the rates with ``class_shares`` as weights.
    """

    matrix_KK: Floats
    rates: tuple[float, ...]
    disagreement: float
    num: int
    solved_rate: float

    @property
    def rate(self) -> float:
        """The mean of ``rates``."""
        return float(np.mean(self.rates))

    @property
    def largest_confusion(self) -> float:
        """The largest entry of ``matrix_KK`` outside the diagonal."""
        return float(self._wrong().max())

    @property
    def structure(self) -> float:
        """How much classes are mistaken for certain other classes: about 0 where labels are wrong at random.

        The excess of the largest wrong entry per row over the mean wrong entry, times the share of the row's wrong
        entries that the largest one has; means over rows.
        """
        wrong_KK = self._wrong()
        largest_K, mean = wrong_KK.max(1), float(wrong_KK.sum()) / max(wrong_KK.size - len(wrong_KK), 1)
        excess = float(np.maximum(largest_K - mean, 0).mean())
        return excess * float(largest_K.sum()) / max(float(wrong_KK.sum()), 1e-12)

    def _wrong(self) -> Floats:
        """``matrix_KK`` with zeros on the diagonal."""
        return self.matrix_KK - np.diag(np.diag(self.matrix_KK))


def confident_labels(probs: Sequence[Floats], given_N: Ints) -> ConfidentLabels:
    """Count the given labels of confident samples. probs: arrays (N, K), out of sample; all have the same weight.

    The matrix needs many samples per class. The rates need samples outside the overlap, so that with many classes they
    are of a smaller share.
    """
    num_classes = probs[0].shape[1]
    part = min(1.0, (FEW_CLASSES / num_classes) ** FALLING)
    total_KK = np.sum([_counts(prob_NK, given_N, 1.0) for prob_NK in probs], 0)
    counts = [_counts(prob_NK, given_N, part) for prob_NK in probs]
    share_K = np.bincount(probs[-1].argmax(1), minlength=num_classes) / len(given_N)
    wrong_K = [1 - np.diag(_shares(counts_KK)) for counts_KK in counts]
    rates = tuple(float(share_K @ one_K) for one_K in wrong_K)
    rate = float(np.mean(rates))
    random_KK = np.full((num_classes, num_classes), rate / max(num_classes - 1, 1))
    np.fill_diagonal(random_KK, 1 - rate)
    matrix_KK = total_KK + PRIOR * random_KK
    matrix_KK /= matrix_KK.sum(1, keepdims=True)
    solved_K = class_shares(matrix_KK, np.bincount(given_N, minlength=num_classes) / len(given_N), share_K)
    return ConfidentLabels(
        matrix_KK=matrix_KK,
        rates=rates,
        disagreement=_disagreement(np.sum(counts, 0)),
        num=int(np.sum(counts)) // len(counts),
        solved_rate=float(solved_K @ np.mean(wrong_K, 0)),
    )


def class_shares(matrix_KK: Floats, given_K: Floats, start_K: Floats) -> Floats:
    """The shares of the true classes that explain the shares of the given labels best, by EM (maximum likelihood).

    Heads predict a class too rarely if its images are often labelled as another one. A mean over predicted classes then
    counts too few wrong labels. matrix_KK: row k, the given labels of class k; rows sum to 1. given_K: (K,), shares of
    the given labels. start_K: (K,), where EM starts; a class without a share there gets none.
    """
    share_K = start_K
    for _ in range(SHARE_ITERATIONS):
        share_K = share_K * (matrix_KK @ (given_K / np.maximum(share_K @ matrix_KK, 1e-12)))
    return np.asarray(share_K / share_K.sum(), np.float64)


def _counts(prob_NK: Floats, given_N: Ints, part: float) -> Floats:
    """(K, K), row k: how many confident samples of predicted class k have each given label. part: see below."""
    num_classes = prob_NK.shape[1]
    rows = confident_rows(prob_NK, part)
    cells = prob_NK[rows].argmax(1) * num_classes + given_N[rows]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.float64)


def _disagreement(counts_KK: Floats) -> float:
    return 1 - float(np.trace(counts_KK)) / max(float(counts_KK.sum()), 1.0)


def confident_rows(prob_NK: Floats, part: float = 1.0) -> Ints:
    """The rows of the most confident samples of each predicted class. part: multiplies their usual number."""
    confidence_N, predicted_N = prob_NK.max(1), prob_NK.argmax(1)
    order_N = np.lexsort((-confidence_N, predicted_N))
    count_K = np.bincount(predicted_N, minlength=prob_NK.shape[1])
    rank_N = np.arange(len(order_N)) - np.repeat(np.cumsum(count_K) - count_K, count_K)
    kept_K = np.maximum(np.ceil(count_K * SHARE * part), np.minimum(np.ceil(count_K / 2), np.ceil(MIN_SAMPLES * part)))
    return np.asarray(order_N[rank_N < np.repeat(kept_K, count_K)], np.int64)


def _shares(counts_KK: Floats) -> Floats:
    """Rows divided by their sums; the identity for classes without samples."""
    sums_K = counts_KK.sum(1, keepdims=True)
    return np.where(sums_K > 0, counts_KK / np.maximum(sums_K, 1), np.eye(len(counts_KK)))
