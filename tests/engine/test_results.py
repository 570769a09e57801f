"""What a finished run says of itself, by value."""

import numpy as np
import pytest
import torch

from fastcpc.engine.results import describe_suspects, summarise

CPU = torch.device("cpu")


def test_summary_by_hand() -> None:
    columns = {
        "is_clean": np.array([True, False, False, False, True]),
        "given_label": np.array([0, 1, 2, 3, 4]),
        "true_label": np.array([0, 0, 0, 3, 0]),  # 1, 2 and 4 are wrong; 1, 2 and 3 are suspected
    }
    top1 = [float(value) for value in [99, *range(10)]]
    summary = summarise({"test_top1": top1, "seconds": 12.5, "best_epoch": 0}, CPU, columns)  # type: ignore[arg-type]
    assert (summary["best_top1"], summary["last10_top1"], summary["final_top1"]) == (99.0, 4.5, 9.0)
    assert (summary["suspected"], summary["finished"], summary["device"]) == (3, True, "cpu")
    assert summary["suspected_precision"] == pytest.approx(2 / 3)
    assert summary["suspected_recall"] == pytest.approx(2 / 3)
    assert describe_suspects(summary, 5) == (
        "3 of 5 labels are suspected to be wrong; 66.7 % of them are; 66.7 % of all wrong labels are among them"
    )


def test_summary_without_true_labels_and_without_suspects() -> None:
    columns = {"is_clean": np.array([True, True]), "given_label": np.array([0, 1])}
    summary = summarise({"test_top1": [50.0], "seconds": 1.0, "best_epoch": 0}, CPU, columns)  # type: ignore[arg-type]
    assert describe_suspects(summary, 2) == "0 of 2 labels are suspected to be wrong"
    columns["true_label"] = np.array([0, 1])
    summary = summarise({"test_top1": [50.0], "seconds": 1.0, "best_epoch": 0}, CPU, columns)  # type: ignore[arg-type]
    assert (summary["suspected_precision"], summary["suspected_recall"]) == (None, None)
