"""What trusted labels say of a cleaning: the numbers of the metrics file. Training never reads them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastcpc.cleaner.metrics import auc, bernoulli_kl, class_ks_pvalues, precision_recall_accuracy
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.scoring import ScoringResult

Ints = NDArray[np.int64]


def agreement_metrics(cleaning: Cleaning, tau: float) -> dict[str, Any]:
    """KL(q_gmm || q_cpc) in nats and the share of samples that both hold clean or both not, per network (Fig. 4)."""
    probs = cleaning.clean_probs
    if "gmm" not in probs or "cpc" not in probs:
        return {}
    pairs = [(_numpy(a), _numpy(b)) for a, b in zip(probs["gmm"], probs["cpc"], strict=True)]
    return {
        "kl_gmm_cpc": [bernoulli_kl(a, b) for a, b in pairs],
        "agreement_gmm_cpc": [float(((a > tau) == (b > tau)).mean()) for a, b in pairs],
    }


def cleaning_metrics(cleaning: Cleaning, given_N: Ints, trusted_N: Ints, tau: float) -> dict[str, Any]:
    """AUC, precision, recall and accuracy of both cleaners and of the partitions, [network 1, network 2] each.

    trusted_N: -1 where not known; only the others are judged.
    """
    known_N = trusted_N >= 0
    truly_clean_N = (given_N == trusted_N)[known_N]
    record: dict[str, Any] = {}
    for name, probs in cleaning.clean_probs.items():
        values = [_numpy(prob_N)[known_N] for prob_N in probs]
        record[f"auc_{name}"] = [auc(value, truly_clean_N) for value in values]
        judged = [precision_recall_accuracy(value > tau, truly_clean_N) for value in values]
        for i, measure in enumerate(("precision", "recall", "accuracy")):
            record[f"{name}_{measure}"] = [row[i] for row in judged]
    judged = [
        precision_recall_accuracy(part.clean_N.cpu().numpy()[known_N], truly_clean_N) for part in cleaning.partition_for
    ]
    for i, measure in enumerate(("precision", "recall", "accuracy")):
        record[f"partition_{measure}"] = [row[i] for row in judged]
    return record


def loss_metrics(scoring: ScoringResult, given_N: Ints, trusted_N: Ints, num_classes: int) -> dict[str, Any]:
    """Per class the p-value that its losses are distributed as all losses are, clean and noisy samples apart (Fig. 1).

    trusted_N: -1 where not known; those samples are left out.
    Of network 1; a p-value below 0.05 says that one mixture for all classes does not fit this class.
    """
    known_N = trusted_N >= 0
    loss_N, given_N = _numpy(scoring.networks[0].loss_N)[known_N], given_N[known_N]
    clean_N = given_N == trusted_N[known_N]
    return {
        "ks_pvalue_clean": class_ks_pvalues(loss_N[clean_N], given_N[clean_N], num_classes),
        "ks_pvalue_noisy": class_ks_pvalues(loss_N[~clean_N], given_N[~clean_N], num_classes),
    }


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
