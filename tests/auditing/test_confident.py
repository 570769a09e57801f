"""Confident samples: which they are, and the rates, matrix and evidence that follow from their labels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fastcpc.auditing.confident import PRIOR, confident_labels, confident_rows
from fastcpc.auditing.evidence import estimate_noise

CLASSES = 3
PER_CLASS = 1000


def probabilities(per_class: int = PER_CLASS) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (N, K) that fall from 0.99 to 0.5 within each class, and the predicted classes (N,)."""
    labels_N = np.repeat(np.arange(CLASSES), per_class)
    own_N = np.tile(np.linspace(0.99, 0.5, per_class), CLASSES)
    prob_NK = np.repeat((1 - own_N)[:, None] / (CLASSES - 1), CLASSES, 1)
    prob_NK[np.arange(len(own_N)), labels_N] = own_N
    return prob_NK, labels_N


def test_confident_rows_are_the_surest_of_each_predicted_class() -> None:
    prob_NK, labels_N = probabilities()
    order_N = np.random.default_rng(0).permutation(len(labels_N))
    rows = np.sort(order_N[confident_rows(prob_NK[order_N])])
    assert rows.tolist() == [PER_CLASS * k + i for k in range(CLASSES) for i in range(PER_CLASS // 10)]
    few = np.sort(confident_rows(probabilities(60)[0]))
    assert few.tolist() == [60 * k + i for k in range(CLASSES) for i in range(30)], "half of a small class"
    assert len(confident_rows(np.array([[0.9, 0.1]]))) == 1


def test_wrong_labels_in_the_overlap_do_not_count() -> None:
    prob_NK, labels_N = probabilities()
    given_N = labels_N.copy()
    unsure_N = prob_NK.max(1) < 0.8
    given_N[unsure_N] = (given_N[unsure_N] + 1) % CLASSES
    found = confident_labels([prob_NK, prob_NK], given_N)
    assert found.rate == found.disagreement == 0 and found.num == 300
    np.testing.assert_array_equal(found.matrix_KK, np.eye(CLASSES))
    noise = estimate_noise(1 - 0.3 * unsure_N, given_N, found)
    assert not noise.has_evidence and noise.rate == 0 and noise.interval[0] == 0


def test_the_matrix_has_the_shares_of_confident_labels() -> None:
    prob_NK, labels_N = probabilities()
    given_N = labels_N.copy()
    of_0 = confident_rows(prob_NK)[:100]
    given_N[of_0[:20]] = 1
    found = confident_labels([prob_NK, prob_NK], given_N)
    assert found.rates == pytest.approx((0.2 / 3, 0.2 / 3)) and found.disagreement == pytest.approx(20 / 300)
    added = PRIOR * np.array([1 - 0.2 / 3, 0.1 / 3, 0.1 / 3])
    np.testing.assert_allclose(found.matrix_KK[0], (np.array([160, 40, 0]) + added) / (200 + PRIOR))
    assert found.largest_confusion == pytest.approx((40 + added[1]) / (200 + PRIOR))


def test_the_posterior_decides_where_two_classes_are_mistaken() -> None:
    prob_NK, labels_N = probabilities()
    given_N = labels_N.copy()
    given_N[:400] = 1  # the surest of class 0
    found = confident_labels([prob_NK, prob_NK], given_N)
    noise = estimate_noise(np.full(len(given_N), 0.6), given_N, found)
    assert found.largest_confusion > 0.9 and noise.rate == pytest.approx(0.4)
    assert noise.interval[0] < 1 / 3 and noise.interval[1] > 0.4 and noise.has_evidence


def test_classes_without_predictions_or_labels_are_the_identity() -> None:
    prob_NK = np.pad(probabilities()[0], ((0, 0), (0, 2)))
    found = confident_labels([prob_NK], probabilities()[1])
    np.testing.assert_array_equal(found.matrix_KK, np.eye(CLASSES + 2))
    noise = estimate_noise(np.ones(len(prob_NK)), probabilities()[1], found)
    np.testing.assert_array_equal(noise.class_interval_K2[3:], [[0, 1], [0, 1]])
