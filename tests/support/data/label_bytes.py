"""Label files in every form, those of six samples, and the error of reading one; not a test itself."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.errors import InputError

TRUE = np.array([0, 1, 2, 3, 4, 9])
GIVEN = [0, 1, 2, 3, 4, 5]
NFC, NFD = "caf\u00e9", "cafe\u0301"  # one name in two Unicode forms


def npy(array: np.ndarray) -> bytes:
    """The bytes of a .npy file of this array; one of objects is pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype.hasobject)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    """The bytes of a .npz file of these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def pt(value: Any) -> bytes:
    """The bytes of a file of torch.save."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def parquet(**columns: Any) -> bytes:
    """The bytes of a Parquet file with these columns."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def text(*lines: str) -> bytes:
    """The bytes of a text file of these lines, without a line break at its end."""
    return "\n".join(lines).encode()


CIFAR_N = {"clean_label": TRUE, "aggre_label": np.array(GIVEN), "worse_label": np.array(GIVEN[::-1])}
PATHS = [f"train/{2 * row:05d},{label}" for row, label in enumerate(GIVEN)]
INDEXED = [f"{2 * row},{label}" for row, label in enumerate(GIVEN)]


def fails(tmp_path: Path, dataset: Dataset, name: str, content: bytes, key: str = "") -> str:
    """The one line with which reading fails, after the file's name."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_label_file(str(path), key, dataset)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}:")
    return message.removeprefix(str(path))
