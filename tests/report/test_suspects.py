"""Which labels are suspected, in which order, and how right that is: by hand-worked cases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished_run import finished_run

from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.results.run import Run, read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspects import Quality, find_suspects, suspects_table

GIVEN = [0, 1, 2, 3, 4, 5]
PREDICTED = [0, 2, 2, 4, 5, 6]
CLEAN = [0.1, 0.2, 0.9, 0.9, 0.5, 0.4]
P_GIVEN = [0.9, 0.3, 0.8, 0.1, 0.3, 0.3]
TRUE = [0, 2, 2, 4, 4, 7]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(finished_run(tmp_path / "run"))


@pytest.fixture
def samples() -> SampleTable:
    """Six samples; 0.5 is cleaner.tau, and a clean probability of just that is not above it."""
    return SampleTable(
        index_N=np.array([10, 11, 12, 13, 15, 14]),
        paths=("a", "b", "c, d", "e", "f", "g"),
        given_N=np.array(GIVEN),
        predicted_N=np.array(PREDICTED),
        q_N2={"cpc": np.arange(12.0).reshape(6, 2) / 12},
        clean_prob_N=np.array(CLEAN),
        p_given_N=np.array(P_GIVEN),
        p_predicted_N=np.full(6, 0.9),
        is_clean_N=np.array(CLEAN) > 0.5,
        true_N=np.array(TRUE),
    )


def test_suspects_are_predicted_noisy_and_of_another_class(run: Run, samples: SampleTable) -> None:
    suspects = find_suspects(run, samples)
    assert suspects.is_issue_N.tolist() == [False, True, False, False, True, True]
    assert suspects.order_N.tolist() == [3, 1, 5, 4, 2, 0]  # by p_given, then by clean probability
    assert suspects.rows.tolist() == [1, 5, 4]
    assert suspects.threshold == 0.5
    # wrong are 1, 3 and 5; 1 and 5 are found, 1 with the right suggestion
    assert suspects.quality == Quality(num_wrong=3, precision=2 / 3, recall=2 / 3, suggestion_accuracy=1 / 2)


def test_threshold_replaces_tau(run: Run, samples: SampleTable) -> None:
    assert find_suspects(run, samples, 0.9).rows.tolist() == [3, 1, 5, 4]
    assert find_suspects(run, samples, 0.3).rows.tolist() == [1]
    none = find_suspects(run, samples, 0.0)
    assert none.rows.tolist() == [] and none.quality == Quality(3, None, 0.0, None)


def test_equal_scores_are_ordered_by_index(run: Run, samples: SampleTable) -> None:
    same = replace(samples, p_given_N=np.zeros(6), clean_prob_N=np.zeros(6))
    assert find_suspects(run, same).order_N.tolist() == [0, 1, 2, 3, 5, 4]


def test_no_quality_without_true_labels(run: Run, samples: SampleTable) -> None:
    unknown = replace(samples, true_N=None)
    suspects = find_suspects(run, unknown)
    assert suspects.quality is None
    assert "true_label" not in suspects_table(run, unknown, suspects, suspects.rows).column_names


def test_quality_skips_samples_without_true_label(run: Run, samples: SampleTable) -> None:
    partly = replace(samples, true_N=np.array([-1, 2, -1, 4, 4, -1]))
    suspects = find_suspects(run, partly)
    assert suspects.quality == Quality(num_wrong=2, precision=1 / 2, recall=1 / 2, suggestion_accuracy=1.0)
    table = suspects_table(run, partly, suspects, suspects.rows)
    assert table["true_label"].to_pylist() == [2, None, 4] and table["true_class"].to_pylist() == ["2", None, "4"]


def test_table_by_value(run: Run, samples: SampleTable) -> None:
    suspects = find_suspects(run, samples)
    table = suspects_table(run, samples, suspects, suspects.order_N[:2]).to_pydict()
    assert table == {
        "index": [13, 11], "path": ["e", "b"], "given_label": [3, 1], "given_class": ["3", "1"],
        "predicted_label": [4, 2], "predicted_class": ["4", "2"], "is_label_issue": [False, True],
        "label_score": [0.1, 0.3], "clean_probability": [0.9, 0.2], "p_predicted": [0.9, 0.9],
        "q_cpc_1": [6 / 12, 2 / 12], "q_cpc_2": [7 / 12, 3 / 12], "true_label": [4, 2], "true_class": ["4", "2"],
    }  # fmt: skip


def test_a_real_run(run: Run) -> None:
    samples = read_samples(run)
    suspects = find_suspects(run, samples)
    table = suspects_table(run, samples, suspects, suspects.order_N)
    assert sorted(suspects.order_N.tolist()) == list(range(240))
    assert table["label_score"].to_pylist() == sorted(table["label_score"].to_pylist())
    assert sum(table["is_label_issue"].to_pylist()) == len(suspects.rows) > 0
