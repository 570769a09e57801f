"""Mean and standard deviation of embeddings per dimension, from one pass over the file in pieces."""

import numpy as np
from numpy.typing import NDArray

from fastcpc.data.embeddings.array_file import EmbeddingArray
from fastcpc.errors import InputError

PIECE_BYTES = 2**25  # of a piece as float64
CONSTANT = 1e-7  # a dimension with a smaller share of its magnitude as deviation carries no information


def column_statistics(key: str, array: EmbeddingArray, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
    """Mean and standard deviation of each dimension over these rows, float32 (D,) each; 1 for a constant dimension.

    rows: int64 (N,), ascending. A memory map is read once, in pieces, with sums in float64. Raises InputError with
    the row of the first NaN or inf.
    """
    num_columns = array.shape[1]
    step = max(1, PIECE_BYTES // (8 * num_columns))
    shift = np.zeros(num_columns)
    total, squares = np.zeros(num_columns), np.zeros(num_columns)
    for first in range(0, len(rows), step):
        own = rows[first : first + step]
        piece = _rows(array, own).astype(np.float64)
        if not np.isfinite(piece.sum()):
            _refuse(key, piece, own)
        if first == 0:
            shift = piece.mean(0)  # without it, squares of a large mean would hide a small deviation
        piece -= shift
        total += piece.sum(0)
        squares += np.einsum("ij,ij->j", piece, piece)
    mean = total / len(rows)
    deviation = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0.0))
    deviation[deviation <= CONSTANT * (np.abs(mean + shift) + 1e-30)] = 1.0
    return (mean + shift).astype(np.float32), deviation.astype(np.float32)


def check_finite(key: str, array: EmbeddingArray, rows: NDArray[np.int64]) -> None:
    """Read these rows once. Raises InputError with the row of the first NaN or inf."""
    step = max(1, PIECE_BYTES // (8 * array.shape[1]))
    for first in range(0, len(rows), step):
        own = rows[first : first + step]
        piece = _rows(array, own)
        if not np.isfinite(piece.sum(dtype=np.float64)):
            _refuse(key, piece, own)


def _rows(array: EmbeddingArray, rows: NDArray[np.int64]) -> EmbeddingArray:
    """These ascending rows, as a slice where they are contiguous."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return np.asarray(array[rows[0] : rows[-1] + 1])
    return np.asarray(array[rows])


def _refuse(key: str, piece: EmbeddingArray, rows: NDArray[np.int64]) -> None:
    bad = np.argwhere(~np.isfinite(piece))
    if len(bad):
        row, column = bad[0].tolist()
        value = "NaN" if np.isnan(piece[row, column]) else "inf"
        raise InputError(
            f"{key}: row {rows[row]} has {value} in column {column} (counted from 0); embed the sample again, or leave "
            "the row out"
        )
