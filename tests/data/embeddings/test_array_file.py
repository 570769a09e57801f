"""Files of embeddings: every format gives the same rows, and an unusable file gives one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastcpc.data.embeddings.array_file import open_embeddings
from fastcpc.data.embeddings.statistics import check_finite, column_statistics
from fastcpc.errors import InputError

ROWS = np.arange(12).reshape(4, 3) / 8


def parquet(path: Path, column: pa.Array, name: str = "embedding") -> None:
    pq.write_table(pa.table({"id": pa.array(range(len(column))), name: column}), path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_format_gives_the_same_rows(tmp_path: Path, dtype: type[np.floating]) -> None:
    rows = ROWS.astype(dtype)
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "b.npz", embeddings=rows, labels=np.arange(4))
    np.savez_compressed(tmp_path / "c.npz", rows)
    flat = pa.array(rows.ravel())
    parquet(tmp_path / "d.parquet", pa.FixedSizeListArray.from_arrays(flat, 3))
    parquet(tmp_path / "e.parquet", pa.ListArray.from_arrays(pa.array([0, 3, 6, 9, 12], pa.int32()), flat))
    for name in ("a.npy", "b.npz", "c.npz", "d.parquet", "e.parquet"):
        found = open_embeddings("data.embeddings", str(tmp_path / name))
        assert found.dtype == dtype and np.array_equal(found, rows), name
    assert isinstance(open_embeddings("data.embeddings", str(tmp_path / "a.npy")), np.memmap)


def cut(path: Path) -> None:
    np.save(path, ROWS.astype(np.float32))
    path.write_bytes(path.read_bytes()[:-5])


UNUSABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.npy", lambda path: None, "no such file"),
    "folder": ("a.npy", Path.mkdir, "is a folder"),
    "text": ("a.txt", lambda path: path.write_text("1 2"), r"use \.npy, \.npz, \.parquet"),
    "foreign": ("a.npy", lambda path: path.write_text("1 2"), "not a NumPy file, or truncated"),
    "empty": ("a.npy", lambda path: path.write_bytes(b""), "not a NumPy file, or truncated"),
    "truncated": ("a.npy", cut, r"is truncated: 43 bytes of numbers where shape \(4, 3\) needs 48"),
    "objects": ("a.npy", lambda path: np.save(path, np.array([[None]]), allow_pickle=True), "Python objects"),
    "integers": ("a.npy", lambda path: np.save(path, np.ones((2, 2), np.int64)), "holds int64"),
    "complex": ("a.npy", lambda path: np.save(path, np.ones((2, 2), complex)), "holds complex128"),
    "vector": ("a.npy", lambda path: np.save(path, np.ones(4)), r"has shape \(4,\)"),
    "cube": ("a.npy", lambda path: np.save(path, np.ones((2, 2, 2))), r"has shape \(2, 2, 2\)"),
    "no rows": ("a.npy", lambda path: np.save(path, np.ones((0, 3))), r"has shape \(0, 3\)"),
    "fortran": ("a.npy", lambda path: np.save(path, np.asfortranarray(ROWS)), "Fortran order"),
    "objects in npz": ("a.npz", lambda path: np.savez(path, np.array([[None]])), "Object arrays cannot be loaded"),
    "two arrays": ("a.npz", lambda path: np.savez(path, p=ROWS, q=ROWS), "name the array 'embeddings'"),
    "no zip": ("a.npz", lambda path: path.write_bytes(b"PK\3\4abc"), "not a .npz file"),
    "no list": ("a.parquet", lambda path: parquet(path, pa.array([1.0])), "no column of lists"),
    "ragged": ("a.parquet", lambda path: parquet(path, pa.array([[1.0, 2.0], [1.0]])), "different lengths"),
    "null row": ("a.parquet", lambda path: parquet(path, pa.array([[1.0], None])), "1 rows without embedding"),
    "null value": ("a.parquet", lambda path: parquet(path, pa.array([[1.0], [None]])), "empty values"),
    "integer lists": ("a.parquet", lambda path: parquet(path, pa.array([[1], [2]])), "lists of int64"),
    "no parquet": ("a.parquet", lambda path: path.write_bytes(b"PAR1"), "not a Parquet file"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_one_clear_line(tmp_path: Path, case: str) -> None:
    name, make, message = UNUSABLE[case]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        open_embeddings("data.embeddings", str(tmp_path / name))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"data.embeddings={tmp_path}")


@pytest.mark.parametrize(("value", "named"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_nan_and_inf_are_named_with_row_and_column(value: float, named: str) -> None:
    rows = np.ones((50_000, 90), np.float16)  # more than one piece
    rows[49_998, 7] = value
    for check in (column_statistics, check_finite):
        with pytest.raises(InputError, match=f"x: row 49998 has {named} in column 7"):
            check("x", rows, np.arange(50_000))
        check("x", rows, np.arange(49_998))


def test_statistics_over_some_rows_of_a_large_mean() -> None:
    draws = np.random.default_rng(0)
    rows = (1000 + draws.normal(size=(70_000, 70)) * np.linspace(0.1, 3, 70)).astype(np.float32)
    rows[:, 5] = 7.0
    chosen = np.flatnonzero(draws.random(70_000) < 0.9)
    mean, std = column_statistics("x", rows, chosen)
    expected = rows[chosen].astype(np.float64)
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-6)
    spread = expected.std(0)
    spread[5] = 1.0
    np.testing.assert_allclose(std, spread, rtol=1e-5)
