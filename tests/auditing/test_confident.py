"""Confident samples: which they are, and the rates, matrix and evidence that follow from their labels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fastcpc.auditing.confident import PRIOR, ConfidentLabels, class_shares, confident_labels, confident_rows
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


def test_class_shares_explain_the_given_labels() -> None:
    matrix_KK = np.array([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.1, 0.0, 0.9]])
    share_K = np.array([0.5, 0.2, 0.3])
    found_K = class_shares(matrix_KK, share_K @ matrix_KK, np.array([0.3, 0.4, 0.3]))
    np.testing.assert_allclose(found_K, share_K, atol=1e-6)
    absent_K = class_shares(matrix_KK, np.array([0.6, 0.4, 0.0]), np.array([0.5, 0.5, 0.0]))
    assert absent_K[2] == 0 and absent_K.sum() == pytest.approx(1)


def test_a_class_that_is_mistaken_has_its_true_weight() -> None:
    prob_NK, labels_N = probabilities()
    given_N = labels_N.copy()
    given_N[:1000:2] = 1  # half of class 0
    prob_NK[600:1000] = prob_NK[600:1000][:, [1, 0, 2]]  # so its least typical images are predicted as class 1
    found = confident_labels([prob_NK, prob_NK], given_N)
    assert found.rate == pytest.approx(0.1), "500 of 3,000 labels are wrong"
    assert found.solved_rate == pytest.approx(500 / 3000, abs=0.02)
    noise = estimate_noise(np.full(len(given_N), 0.6), given_N, found)
    assert noise.rate == found.solved_rate and noise.has_evidence
    assert noise.interval[0] < found.rate and noise.interval[1] > found.solved_rate


def test_the_structure_tells_mistaken_classes_from_random_labels() -> None:
    prob_NK, labels_N = probabilities()
    rng = np.random.default_rng(0)
    random_N = np.where(rng.random(len(labels_N)) < 0.3, rng.integers(0, CLASSES, len(labels_N)), labels_N)
    paired_N = np.where((rng.random(len(labels_N)) < 0.1) & (labels_N == 0), 1, labels_N)
    at_random, paired = (confident_labels([prob_NK, prob_NK], given_N) for given_N in (random_N, paired_N))
    assert at_random.rate > paired.rate
    assert at_random.structure < 0.025 < paired.structure


def test_the_structure_of_a_known_matrix() -> None:
    matrix_KK = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]])
    excess, share = (2 * (0.2 - 0.8 / 6) + 0) / 3, 0.5 / 0.8
    assert ConfidentLabels(matrix_KK, (0.2,), 0.2, 100, 0.0).structure == pytest.approx(excess * share)
    assert ConfidentLabels(np.eye(3), (0.0,), 0.0, 100, 0.0).structure == 0


def test_solved_shares_count_as_much_as_two_classes_are_mistaken() -> None:
    given_N, own_N = np.arange(100) % 2, np.full(100, 0.7)
    for largest, rate in ((0.2, 0.2), (0.3, 0.25), (0.4, 0.3)):
        matrix_KK = np.array([[1 - largest, largest], [0.0, 1.0]])
        noise = estimate_noise(own_N, given_N, ConfidentLabels(matrix_KK, (0.2, 0.2), 0.2, 100, 0.3))
        assert noise.rate == pytest.approx(rate)
        noise = estimate_noise(own_N, given_N, ConfidentLabels(matrix_KK, (0.2, 0.2), 0.2, 100, 0.1))
        assert noise.rate == pytest.approx(0.2), "never below the rate of the confident samples"


def test_two_classes_have_structure_where_only_one_is_mistaken() -> None:
    own_N = np.linspace(0.99, 0.5, 2000)
    prob_NK = np.concatenate([np.stack([own_N, 1 - own_N], 1), np.stack([1 - own_N, own_N], 1)])
    labels_N, draw_N = np.repeat([0, 1], 2000), np.random.default_rng(0).random(4000)
    one_way, both_ways = np.where((draw_N < 0.3) & (labels_N == 0), 1, labels_N), labels_N ^ (draw_N < 0.3)
    assert confident_labels([prob_NK], one_way).structure > 0.05
    assert confident_labels([prob_NK], both_ways).structure < 0.03


def test_many_classes_count_fewer_samples_for_the_rate() -> None:
    num_classes, per_class = 40, 500
    own_N = np.tile(np.linspace(0.99, 0.5, per_class), num_classes)
    labels_N = np.repeat(np.arange(num_classes), per_class)
    prob_NK = np.repeat((1 - own_N)[:, None] / (num_classes - 1), num_classes, 1)
    prob_NK[np.arange(len(own_N)), labels_N] = own_N
    given_N = labels_N.copy()
    place_N = np.tile(np.arange(per_class), num_classes)
    given_N[(place_N >= 25) & (place_N < 50)] = 0  # in the overlap
    found = confident_labels([prob_NK], given_N)
    assert found.num == 16 * num_classes and found.rate == 0
    assert found.matrix_KK[1, 0] > 0.3, "of 50 per class"


def test_classes_without_predictions_or_labels_are_the_identity() -> None:
    prob_NK = np.pad(probabilities()[0], ((0, 0), (0, 2)))
    found = confident_labels([prob_NK], probabilities()[1])
    np.testing.assert_array_equal(found.matrix_KK, np.eye(CLASSES + 2))
    noise = estimate_noise(np.ones(len(prob_NK)), probabilities()[1], found)
    np.testing.assert_array_equal(noise.class_interval_K2[3:], [[0, 1], [0, 1]])
