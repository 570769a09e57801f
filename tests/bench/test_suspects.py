"""The measures of bench/tables/suspects.py by hand-worked cases, and its table."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def suspects(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/ is a folder of scripts, which import each other."""
    monkeypatch.syspath_prepend(str(BENCH / "tables"))
    spec = importlib.util.spec_from_file_location("bench_suspects", BENCH / "tables" / "suspects.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_precision_and_recall(suspects: ModuleType) -> None:
    issue_N, wrong_N = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 1, 1], bool)
    assert suspects.precision_recall(issue_N, wrong_N) == {"num_suspected": 3, "precision": 2 / 3, "recall": 1 / 2}
    assert suspects.precision_recall(np.zeros(5, bool), wrong_N)["precision"] == 0


def test_rank_at_95_percent_recall(suspects: ModuleType) -> None:
    wrong_N = np.ones(25, bool)
    wrong_N[[3, 24]] = False
    wrong_N[20:24] = False  # of 25 by score 19 are wrong; the 19th of them has place 20, after one right one
    result = suspects.ranking(np.arange(25) / 25, wrong_N)
    assert result["precision_at_recall_95"] == pytest.approx(19 / 20)
    assert suspects.ranking(1 - wrong_N.astype(float), wrong_N)["average_precision"] == 1


def test_table_has_means_over_seeds(suspects: ModuleType) -> None:
    records = [
        {
            "config": "c", "seed": seed, "num_wrong": 1, "num_samples": 4,
            "rules": {rule: {"precision": p, "recall": 1.0} for rule in suspects.RULES},
            "rankings": {"label_score": {"precision_at_recall_95": p}},
        }
        for seed, p in ((1, 0.5), (2, 0.7))
    ]  # fmt: skip
    assert suspects.table(records)[-1] == "| c | 25.0 % |" + " 60.0 / 100.0 |" * 3 + " 60.0 |"
