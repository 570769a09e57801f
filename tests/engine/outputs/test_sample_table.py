"""clean_probabilities.parquet, read back by pyarrow and by its own reader."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import RunError

NAMES = [
    "index", "path", "given_label", "predicted_label", "q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2", "clean_probability",
    "p_given", "p_predicted", "is_clean", "true_label",
]  # fmt: skip


def make_table(num_rows: int) -> SampleTable:
    draw = np.random.default_rng(0)
    clean_N = draw.random(num_rows)
    return SampleTable(
        index_N=np.arange(num_rows)[::-1].copy(),
        paths=tuple(f'train/{number:05d}, "ä"' for number in range(num_rows)),
        given_N=draw.integers(0, 10, num_rows),
        predicted_N=draw.integers(0, 10, num_rows),
        q_N2={"gmm": draw.random((num_rows, 2)), "cpc": draw.random((num_rows, 2))},
        clean_prob_N=clean_N,
        p_given_N=draw.random(num_rows),
        p_predicted_N=draw.random(num_rows),
        is_clean_N=clean_N > 0.5,
        true_N=draw.integers(0, 10, num_rows),
    )


def assert_equal(found: SampleTable, expected: SampleTable) -> None:
    for field in fields(SampleTable):
        one, two = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "q_N2":
            assert list(one) == list(two) and all((one[name] == two[name]).all() for name in two)
        else:
            np.testing.assert_array_equal(one, two, err_msg=field.name)


@pytest.mark.parametrize("num_rows", [0, 1, 1000])
def test_parquet_round_trip(tmp_path: Path, num_rows: int) -> None:
    samples = make_table(num_rows)
    samples.write(tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.column_names == NAMES
    assert table.num_rows == num_rows
    for name, values in (
        ("path", samples.paths), ("index", samples.index_N), ("q_gmm_2", samples.q_N2["gmm"][:, 1]),
        ("q_cpc_1", samples.q_N2["cpc"][:, 0]), ("is_clean", samples.is_clean_N), ("true_label", samples.true_N),
    ):  # fmt: skip
        assert table[name].to_pylist() == list(values), name  # type: ignore[arg-type]
    assert [item.name for item in tmp_path.iterdir()] == ["c.parquet"]
    if num_rows:
        assert_equal(SampleTable.read(tmp_path / "c.parquet"), samples)


def test_unused_cleaners_and_nan_are_null_and_true_labels_optional() -> None:
    q_N2 = np.array([[0.5, np.nan, 1.0], [0.0, 0.1, 0.2]], np.float32).T
    samples = replace(make_table(3), q_N2={"cpc": q_N2}, true_N=None)
    table = samples.to_arrow()
    assert table.column_names == NAMES[:-1]
    assert table["q_gmm_1"].to_pylist() == [None] * 3
    assert table["q_cpc_1"].to_pylist() == [0.5, None, 1.0]
    samples = replace(samples, q_N2={"cpc": np.ones((3, 2))})
    assert_equal(SampleTable.from_arrow(samples.to_arrow()), samples)


def test_another_cleaner_has_columns_behind_the_known_ones() -> None:
    samples = replace(make_table(3), q_N2={"toy": np.ones((3, 2)), "cpc": np.zeros((3, 2))})
    table = samples.to_arrow()
    assert table.column_names[4:11] == [*NAMES[4:8], "q_toy_1", "q_toy_2", "clean_probability"]
    found = SampleTable.from_arrow(table)
    assert list(found.q_N2) == ["cpc", "toy"] and found.q_N2["toy"].tolist() == [[1, 1]] * 3


def drop(*names: str) -> Any:
    return lambda table: table.drop_columns(list(names))


def put(name: str, values: list[Any]) -> Any:
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("p_given", "index"), "no column index, p_given"),
        (drop("q_cpc_1"), "no column q_cpc_1"),
        (put("q_cpc_1", [0.5, None, 0.5]), "column q_cpc_1 has empty rows"),
        (put("index", ["a", "b", "c"]), "column index holds string"),
    ],
)
def test_damaged_columns_are_named(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleTable.from_arrow(change(make_table(3).to_arrow()))


def test_columns_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="column p_given has 2 rows, index has 3"):
        replace(make_table(3), p_given_N=np.zeros(2)).write(tmp_path / "c.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*gone/c\.parquet: No such file or directory; mend that"):
        make_table(3).write(tmp_path / "gone" / "c.parquet")


def test_suspected_labels_by_hand() -> None:
    samples = replace(
        make_table(3),
        given_N=np.array([0, 1, 2]),
        predicted_N=np.array([9, 9, 2]),
        clean_prob_N=np.array([0.2, 0.6, 0.1]),
        is_clean_N=np.array([False, True, False]),
    )
    assert samples.suspected().tolist() == [True, False, False]
    assert samples.suspected(0.6).tolist() == [True, True, False]
    assert samples.suspected(0.1).tolist() == [False, False, False]
