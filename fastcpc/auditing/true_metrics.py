"""Figures of an audit against true labels, where they are known. The audit itself never reads true labels."""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from fastcpc.arrays import Bools, Floats, Ints


def measure(score_N: Floats, is_issue_N: Bools, predicted_N: Ints, given_N: Ints, true_N: Ints) -> dict[str, float]:
    """noise_rate, suspects, precision, recall, f1, relabel_accuracy; auroc and average_precision if labels are wrong.

    score_N: (N,), 1 is good. Shares are in [0, 1].
    """
    wrong_N = given_N != true_N
    found = int((is_issue_N & wrong_N).sum())
    precision, recall = found / max(int(is_issue_N.sum()), 1), found / max(int(wrong_N.sum()), 1)
    figures = {
        "noise_rate": float(wrong_N.mean()),
        "suspects": float(is_issue_N.mean()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "relabel_accuracy": float((predicted_N == true_N).mean()),
    }
    if wrong_N.any() and not wrong_N.all():
        badness_N = -np.asarray(score_N, np.float64)
        figures["auroc"] = float(roc_auc_score(wrong_N, badness_N))
        figures["average_precision"] = float(average_precision_score(wrong_N, badness_N))
    return figures
