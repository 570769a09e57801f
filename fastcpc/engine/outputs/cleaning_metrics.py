"""Metrics of a cleaning against true labels, for metrics.jsonl. Training never reads them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fastcpc.arrays import Bools, Ints
from fastcpc.cleaner.metrics import auc, bernoulli_kl, class_ks_pvalues, precision_recall_accuracy
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.outputs.metric_keys import auc_key, pair_keys
from fastcpc.engine.outputs.sample_table import host_array
from fastcpc.engine.scoring import ScoringResult

MEASURES = ("precision", "recall", "accuracy")


def agreement_metrics(cleaning: Cleaning, tau: float) -> dict[str, Any]:
    """Of each cleaner and the next one: KL(q || q_next) in nats and the share of samples on which both decide alike,
    per network (Fig. 4)."""
    record: dict[str, Any] = {}
    for first, second in pairwise(cleaning.clean_probs):
        probs = zip(cleaning.clean_probs[first], cleaning.clean_probs[second], strict=True)
        pairs = [(host_array(a), host_array(b)) for a, b in probs]
        kl, agreement = pair_keys(first, second)
        record[kl] = [bernoulli_kl(a, b) for a, b in pairs]
        record[agreement] = [float(((a > tau) == (b > tau)).mean()) for a, b in pairs]
    return record


def cleaning_metrics(cleaning: Cleaning, given_N: Ints, trusted_N: Ints, tau: float) -> dict[str, Any]:
    """AUC, precision, recall and accuracy per cleaner and of the partitions, [network 1, network 2] each.

    trusted_N: true labels; samples with -1 (unknown) are left out.
    """
    known_N = trusted_N >= 0
    truly_clean_N = (given_N == trusted_N)[known_N]
    record: dict[str, Any] = {}
    for name, probs in cleaning.clean_probs.items():
        values = [host_array(prob_N)[known_N] for prob_N in probs]
        record[auc_key(name)] = [auc(value, truly_clean_N) for value in values]
        record |= _decision_metrics(name, [value > tau for value in values], truly_clean_N)
    partitions = [part.clean_N.cpu().numpy()[known_N] for part in cleaning.partition_for]
    return record | _decision_metrics("partition", partitions, truly_clean_N)


def loss_metrics(scoring: ScoringResult, given_N: Ints, trusted_N: Ints, num_classes: int) -> dict[str, Any]:
    """Per class the p-value that its losses are distributed as all losses are, clean and noisy samples apart (Fig. 1).

    Of network 1. A p-value below 0.05 means that one mixture for all classes does not fit this class.
    trusted_N: true labels; samples with -1 (unknown) are left out.
    """
    known_N = trusted_N >= 0
    loss_N, given_N = host_array(scoring.networks[0].loss_N)[known_N], given_N[known_N]
    clean_N = given_N == trusted_N[known_N]
    return {
        "ks_pvalue_clean": class_ks_pvalues(loss_N[clean_N], given_N[clean_N], num_classes),
        "ks_pvalue_noisy": class_ks_pvalues(loss_N[~clean_N], given_N[~clean_N], num_classes),
    }


def _decision_metrics(name: str, predicted_clean: Sequence[Bools], truly_clean_N: Bools) -> dict[str, Any]:
    rows = [precision_recall_accuracy(clean_N, truly_clean_N) for clean_N in predicted_clean]
    return {f"{name}_{measure}": [row[i] for row in rows] for i, measure in enumerate(MEASURES)}
