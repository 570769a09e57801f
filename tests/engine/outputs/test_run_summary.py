"""What a finished run says of itself, by value."""

import numpy as np
import pytest
import torch

from fastcpc.data.labels.noise import Labels
from fastcpc.engine.outputs.run_summary import describe_suspects, summarise

CPU = torch.device("cpu")


def labels_of(given: list[int], trusted: list[int] | None = None, partly: list[int] | None = None) -> Labels:
    known = [None if values is None else np.array(values) for values in (trusted, partly)]
    return Labels(np.array(given), known[0], "none", 0.0, None, 1, known[1])


def test_summary_by_hand() -> None:
    columns = {"is_clean": np.array([True, False, False, False, True, False]), "given_label": np.arange(6)}
    columns["predicted_label"] = np.array([0, 9, 9, 9, 9, 5])  # 5 is not held clean, but nothing else is predicted
    labels = labels_of([0, 1, 2, 3, 4, 5], [0, 0, 0, 3, 0, 5])  # 1, 2 and 4 are wrong; 1, 2 and 3 are suspected
    top1 = [float(value) for value in [99, *range(10)]]
    summary = summarise({"test_top1": top1, "seconds": 12.5, "best_epoch": 0}, CPU, columns, labels)  # type: ignore[arg-type]
    assert (summary["best_top1"], summary["last10_top1"], summary["final_top1"]) == (99.0, 4.5, 9.0)
    assert (summary["suspected"], summary["finished"], summary["device"]) == (3, True, "cpu")
    assert summary["suspected_precision"] == pytest.approx(2 / 3)
    assert summary["suspected_recall"] == pytest.approx(2 / 3)
    assert describe_suspects(summary, 6) == (
        "3 of 6 labels are suspected to be wrong; 66.7 % of them are; 66.7 % of all wrong labels are among them"
    )


def test_summary_without_true_labels_and_without_suspects() -> None:
    labels = np.array([0, 1])
    columns = {"is_clean": np.array([True, True]), "given_label": labels, "predicted_label": 1 - labels}
    past = {"test_top1": [50.0], "seconds": 1.0, "best_epoch": 0}
    summary = summarise(past, CPU, columns, labels_of([0, 1]))  # type: ignore[arg-type]
    assert describe_suspects(summary, 2) == "0 of 2 labels are suspected to be wrong"
    summary = summarise(past, CPU, columns, labels_of([0, 1], [0, 1]))  # type: ignore[arg-type]
    assert (summary["suspected_precision"], summary["suspected_recall"]) == (None, None)


def test_only_samples_whose_true_label_is_known_are_judged() -> None:
    columns = {"is_clean": np.arange(6) < 3, "given_label": np.arange(6), "predicted_label": np.full(6, 9)}
    past = {"test_top1": [50.0], "seconds": 1.0, "best_epoch": 0}
    labels = labels_of([0, 1, 2, 3, 4, 5], partly=[0, -1, 0, -1, 4, 0])  # 2 and 5 are wrong; 4 and 5 are suspected
    summary = summarise(past, CPU, columns, labels)  # type: ignore[arg-type]
    assert (summary["suspected"], summary["suspected_precision"], summary["suspected_recall"]) == (3, 0.5, 0.5)
