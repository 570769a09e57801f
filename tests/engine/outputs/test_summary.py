"""summary.json by value."""

import numpy as np
import pytest
import torch

from fastcpc.data.labels.noise import Labels
from fastcpc.engine.outputs.cleaning_record import describe_suspects, summarise
from fastcpc.engine.outputs.sample_table import SampleTable

CPU = torch.device("cpu")


def labels_of(given: list[int], trusted: list[int] | None = None, partly: list[int] | None = None) -> Labels:
    known = [None if values is None else np.array(values) for values in (trusted, partly)]
    return Labels(np.array(given), known[0], "none", 0.0, None, 1, known[1])


def table_of(is_clean: list[bool], predicted: list[int]) -> SampleTable:
    """Samples with given labels 0, 1, ..."""
    given = np.arange(len(predicted))
    ones = np.ones(len(given))
    return SampleTable(
        index_N=given, paths=tuple(map(str, given)), given_N=given, predicted_N=np.array(predicted), q_N2={},
        clean_prob_N=ones, p_given_N=ones, p_predicted_N=ones, is_clean_N=np.array(is_clean),
    )  # fmt: skip


def test_summary_by_value() -> None:
    # sample 5 is predicted noisy, but its given label is also the predicted one
    table = table_of([True, False, False, False, True, False], [0, 9, 9, 9, 9, 5])
    labels = labels_of([0, 1, 2, 3, 4, 5], [0, 0, 0, 3, 0, 5])  # 1, 2 and 4 are wrong; 1, 2 and 3 are suspected
    top1 = [float(value) for value in [99, *range(10)]]
    summary = summarise({"test_top1": top1, "seconds": 12.5, "best_epoch": 0}, CPU, table, labels)
    assert (summary["best_top1"], summary["last10_top1"], summary["final_top1"]) == (99.0, 4.5, 9.0)
    assert (summary["suspected"], summary["finished"], summary["device"]) == (3, True, "cpu")
    assert summary["suspected_precision"] == pytest.approx(2 / 3)
    assert summary["suspected_recall"] == pytest.approx(2 / 3)
    assert describe_suspects(summary, 6) == (
        "3 of 6 labels are suspected to be wrong; 66.7 % of them are; 66.7 % of all wrong labels are among them"
    )


def test_summary_without_true_labels_and_without_suspects() -> None:
    table = table_of([True, True], [1, 0])
    history = {"test_top1": [50.0], "seconds": 1.0, "best_epoch": 0}
    summary = summarise(history, CPU, table, labels_of([0, 1]))
    assert describe_suspects(summary, 2) == "0 of 2 labels are suspected to be wrong"
    summary = summarise(history, CPU, table, labels_of([0, 1], [0, 1]))
    assert (summary["suspected_precision"], summary["suspected_recall"]) == (None, None)


def test_precision_and_recall_skip_samples_without_true_label() -> None:
    table = table_of([True, True, True, False, False, False], [9] * 6)
    history = {"test_top1": [50.0], "seconds": 1.0, "best_epoch": 0}
    labels = labels_of([0, 1, 2, 3, 4, 5], partly=[0, -1, 0, -1, 4, 0])  # 2 and 5 are wrong; 4 and 5 are suspected
    summary = summarise(history, CPU, table, labels)
    assert (summary["suspected"], summary["suspected_precision"], summary["suspected_recall"]) == (3, 0.5, 0.5)
