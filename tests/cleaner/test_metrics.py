import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from fastcpc.cleaner.metrics import auc, bernoulli_kl, class_ks_pvalues, precision_recall_accuracy


def test_auc_by_hand() -> None:
    # pairs (clean, noisy): (0.9, 0.8) right, (0.9, 0.1) right, (0.3, 0.8) wrong, (0.3, 0.1) right
    assert auc(np.array([0.9, 0.3, 0.8, 0.1]), np.array([True, True, False, False])) == 0.75


def test_auc_needs_both_kinds() -> None:
    assert auc(np.array([0.1, 0.2]), np.array([True, True])) is None
    assert auc(np.array([0.1, 0.2]), np.array([False, False])) is None


def test_precision_recall_accuracy_by_hand() -> None:
    held = np.array([True, True, True, False, False])
    clean = np.array([True, True, False, True, False])
    assert precision_recall_accuracy(held, clean) == (2 / 3, 2 / 3, 0.6)
    assert precision_recall_accuracy(np.zeros(2, bool), np.array([True, False])) == (None, 0.0, 0.5)
    assert precision_recall_accuracy(np.array([True, False]), np.zeros(2, bool)) == (0.0, None, 0.5)


def test_bernoulli_kl() -> None:
    assert bernoulli_kl(np.array([0.3, 0.9]), np.array([0.3, 0.9])) == 0.0
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert bernoulli_kl(np.array([0.5]), np.array([0.25])) == pytest.approx(expected)
    assert math.isfinite(bernoulli_kl(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def test_class_ks_pvalues_are_scipys() -> None:
    draws = np.random.default_rng(0)
    losses, labels = draws.normal(size=300), draws.integers(0, 3, 300)
    losses[labels == 1] += 2
    values = class_ks_pvalues(losses, labels, 4)
    assert values[3] is None
    assert values[1] is not None and values[1] < 1e-6 and values[0] is not None and values[0] > 1e-6
    assert values[0] == pytest.approx(ks_2samp(losses[labels == 0], losses, method="asymp").pvalue)
