"""labels.npz and clean_probabilities.parquet, read back by their own libraries."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastcpc.data.labels.noise import Labels
from fastcpc.engine.outputs.sample_table import write_clean_probabilities, write_labels
from fastcpc.errors import RunError

NAMES = [
    "index", "path", "given_label", "predicted_label", "q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2", "clean_probability",
    "p_given", "p_predicted", "is_clean", "true_label",
]  # fmt: skip


def make_columns(num_rows: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    columns: dict[str, Any] = {name: draw.random(num_rows) for name in NAMES}
    for name in ("given_label", "predicted_label", "true_label"):
        columns[name] = draw.integers(0, 10, num_rows)
    columns["index"] = np.arange(num_rows)[::-1].copy()
    columns["path"] = [f'train/{number:05d}, "ä"' for number in range(num_rows)]
    columns["is_clean"] = columns["clean_probability"] > 0.5
    return columns


@pytest.mark.parametrize("num_rows", [0, 1, 1000])
def test_parquet_round_trip(tmp_path: Path, num_rows: int) -> None:
    columns = make_columns(num_rows)
    write_clean_probabilities(tmp_path / "c.parquet", dict(reversed(columns.items())))
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.column_names == NAMES
    assert table.num_rows == num_rows
    for name in NAMES:
        assert table[name].to_pylist() == list(columns[name]), name
    assert [item.name for item in tmp_path.iterdir()] == ["c.parquet"]


def test_unknown_values_are_null_and_trusted_labels_optional(tmp_path: Path) -> None:
    columns = make_columns(3) | {"q_gmm_1": None, "q_gmm_2": None, "q_cpc_1": np.array([0.5, np.nan, 1.0], np.float32)}
    del columns["true_label"]
    write_clean_probabilities(tmp_path / "c.parquet", columns)
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.column_names == NAMES[:-1]
    assert table["q_gmm_1"].to_pylist() == [None] * 3
    assert table["q_cpc_1"].to_pylist() == [0.5, None, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_given": None}, r"missing: \['p_given'\]"),
        ({"mistake": [1, 2, 3]}, r"columns unknown: \['mistake'\]"),
        ({"p_given": np.zeros(2)}, "column p_given has 2 rows, index has 3"),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_clean_probabilities(tmp_path / "c.parquet", make_columns(3) | change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trusted", [np.array([1, 2, 0]), None])
def test_labels_round_trip(tmp_path: Path, trusted: np.ndarray | None) -> None:
    labels = Labels(np.array([1, 0, 0]), trusted, "sym", 0.5, None if trusted is None else 1 / 3, 7)
    write_labels(tmp_path / "labels.npz", labels, np.array([4, 9, 11]), ["zéro", "one", ""])
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as stored:
        assert stored["given"].tolist() == [1, 0, 0]
        assert stored["source_index"].tolist() == [4, 9, 11]
        assert stored["class_names"].tolist() == ["zéro", "one", ""]
        assert (str(stored["noise_kind"]), float(stored["nominal_rate"]), int(stored["seed"])) == ("sym", 0.5, 7)
        assert ("trusted" in stored) == (trusted is not None)
        if trusted is None:
            assert np.isnan(stored["actual_rate"])
        else:
            assert stored["trusted"].tolist() == [1, 2, 0]
            assert float(stored["actual_rate"]) == 1 / 3


def test_labels_of_other_lengths_are_refused(tmp_path: Path) -> None:
    labels = Labels(np.array([1, 0, 0]), np.array([1, 0]), "sym", 0.5, 0.5, 7)
    with pytest.raises(ValueError, match="trusted has 2 entries for 3 labels"):
        write_labels(tmp_path / "labels.npz", labels, np.arange(3), ["a", "b"])


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*gone/c\.parquet: No such file or directory; mend that"):
        write_clean_probabilities(tmp_path / "gone" / "c.parquet", make_columns(3))
