"""clean_probabilities.parquet, read back by pyarrow and by SampleTable."""

from dataclasses import fields, replace
from pathlib import Path

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
    given_N, predicted_N, true_N = draw.integers(0, 10, (3, num_rows))
    clean_N, p_given_N, p_predicted_N = draw.random((3, num_rows))
    return SampleTable(
        index_N=np.arange(num_rows)[::-1].copy(),
        paths=tuple(f'train/{number:05d}, "ä"' for number in range(num_rows)),
        given_N=given_N,
        predicted_N=predicted_N,
        q_N2={"gmm": draw.random((num_rows, 2)), "cpc": draw.random((num_rows, 2))},
        clean_prob_N=clean_N,
        p_given_N=p_given_N,
        p_predicted_N=p_predicted_N,
        is_clean_N=clean_N > 0.5,
        true_N=true_N,
    )


def assert_equal(one: SampleTable, other: SampleTable) -> None:
    assert list(one.q_N2) == list(other.q_N2)
    for name in one.q_N2:
        np.testing.assert_array_equal(one.q_N2[name], other.q_N2[name])
    for field in fields(SampleTable):
        if field.name != "q_N2":
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("num_rows", [0, 1, 1000])
def test_columns_in_the_file(tmp_path: Path, num_rows: int) -> None:
    samples = make_table(num_rows)
    samples.write(tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.column_names == NAMES
    assert table.num_rows == num_rows
    q_gmm, q_cpc = samples.q_N2["gmm"], samples.q_N2["cpc"]
    expected = [
        samples.index_N, samples.paths, samples.given_N, samples.predicted_N, q_gmm[:, 0], q_gmm[:, 1], q_cpc[:, 0],
        q_cpc[:, 1], samples.clean_prob_N, samples.p_given_N, samples.p_predicted_N, samples.is_clean_N, samples.true_N,
    ]  # fmt: skip
    for name, values in zip(NAMES, expected, strict=True):
        assert values is not None and table[name].to_pylist() == list(values), name
    assert [item.name for item in tmp_path.iterdir()] == ["c.parquet"]


@pytest.mark.parametrize("num_rows", [1, 100])
def test_read_returns_what_was_written(tmp_path: Path, num_rows: int) -> None:
    samples = make_table(num_rows)
    third = {"jsd": np.linspace(0, 1, 2 * num_rows).reshape(num_rows, 2)}
    for table in (samples, replace(samples, true_N=None, q_N2={}), replace(samples, q_N2={**samples.q_N2, **third})):
        table.write(tmp_path / "c.parquet")
        assert_equal(SampleTable.read(tmp_path / "c.parquet"), table)


def test_unused_cleaners_and_nan_are_null_and_true_labels_optional(tmp_path: Path) -> None:
    q_cpc_N2 = np.array([[0.5, 0.1], [np.nan, 0.2], [1.0, 0.3]], np.float32)
    replace(make_table(3), q_N2={"cpc": q_cpc_N2}, true_N=None).write(tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.column_names == NAMES[:-1]
    assert table["q_gmm_1"].to_pylist() == [None] * 3
    assert table["q_cpc_1"].to_pylist() == [0.5, None, 1.0]


def test_columns_of_different_lengths_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="column p_given has 2 rows, index has 3"):
        replace(make_table(3), p_given_N=np.zeros(2)).write(tmp_path / "c.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["p_given", "q_cpc_2"]), "no column p_given, q_cpc_2"),
        (lambda table: table.set_column(9, "p_given", pa.array([0.5, None, 0.5])), "column p_given has empty rows"),
        (
            lambda table: table.set_column(2, "given_label", pa.array(["a", "b", "c"])),
            "column given_label holds string",
        ),
    ],
)
def test_damaged_tables_are_rejected(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        SampleTable.from_arrow(change(make_table(3).to_arrow()))


def test_suspected_labels_by_value() -> None:
    samples = replace(
        make_table(4), given_N=np.array([0, 0, 0, 0]), predicted_N=np.array([1, 1, 0, 1]),
        clean_prob_N=np.array([0.9, 0.2, 0.2, 0.6]), is_clean_N=np.array([True, False, False, True]),
    )  # fmt: skip
    assert samples.suspected().tolist() == [False, True, False, False]
    assert samples.suspected(0.6).tolist() == [False, True, False, True]


def test_missing_folder_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*gone/c\.parquet: No such file or directory; fix this"):
        make_table(3).write(tmp_path / "gone" / "c.parquet")
