"""Opens a file of embeddings: .npy as a memory map, .npz and Parquet in memory.

The data set ``embeddings`` and ``fastcpc-audit`` call it. Nothing is unpickled.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastcpc.errors import InputError

ENDINGS = (".npy", ".npz", ".parquet")
USUAL_NAMES = ("embeddings", "embedding", "features", "x", "X")
EmbeddingArray = NDArray[Any]


def open_embeddings(key: str, file: str) -> EmbeddingArray:
    """The embeddings of a file, (N, D) float16, float32 or float64, read-only.

    key: the setting or option, for messages. A .npy file is a memory map: rows are read when they are used. Raises
    InputError, one line with key and file, for everything else than N >= 1 vectors of D >= 1 numbers. NaN and inf are
    found later, by ``column_statistics``.
    """
    path = Path(file).expanduser()
    ending = path.suffix.lower()
    if path.is_dir():
        raise InputError(f"{key}={file}: is a folder without embeddings.npy; fastcpc-embed writes one")
    if not path.is_file():
        raise InputError(f"{key}={file}: no such file")
    if ending not in ENDINGS:
        raise InputError(f"{key}={file}: unknown kind of file; use {', '.join(ENDINGS)}")
    try:
        array = {".npy": _map_npy, ".npz": _read_npz, ".parquet": _read_parquet}[ending](path)
        _check(array.dtype, array.shape)
    except OSError as error:
        raise InputError(f"{key}={file}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise InputError(f"{key}={file}: {error}") from None
    return array


def _check(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not read; save a plain array: numpy.save(FILE, array)")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ValueError(f"holds {str(dtype)[:40]}; embeddings are float16 or float32")
    if len(shape) != 2 or not math.prod(shape):
        raise ValueError(f"has shape {shape}; needs (N, D), a row per sample and a column per dimension")


def _map_npy(path: Path) -> EmbeddingArray:
    shape, fortran, dtype, offset = _npy_header(path)
    _check(dtype, shape)
    if fortran:
        raise ValueError(
            "is in Fortran order, where a row is not in one piece; save numpy.ascontiguousarray(array) instead"
        )
    needed, room = math.prod(shape) * dtype.itemsize, path.stat().st_size - offset
    if room < needed:
        raise ValueError(f"is truncated: {room:,} bytes of numbers where shape {shape} needs {needed:,}")
    return np.memmap(path, dtype, "r", offset, shape)


def _npy_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and the position of the first number."""
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    with open(path, "rb") as file:
        try:
            version = npy_format.read_magic(file)
            if version not in readers:
                raise ValueError(f"version {version}")
            shape, fortran, dtype = readers[version](file)
        except ValueError as error:
            raise ValueError(f"not a NumPy file, or truncated ({str(error).splitlines()[0][:80]})") from None
        return shape, fortran, dtype, file.tell()


def _read_npz(path: Path) -> EmbeddingArray:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = archive.files
            usual = [name for name in USUAL_NAMES if name in names]
            if not usual and len(names) != 1:
                raise ValueError(f"holds {', '.join(names)[:80] or 'nothing'}; name the array {USUAL_NAMES[0]!r}")
            return np.ascontiguousarray(archive[usual[0] if usual else names[0]])
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, AttributeError) as error:
        raise ValueError(f"not a .npz file, or damaged ({' '.join(str(error).split())[:80]})") from None


def _read_parquet(path: Path) -> EmbeddingArray:
    try:
        schema = pq.read_schema(path)
        lists = [field.name for field in schema if _is_list(field.type)]
        usual = [name for name in USUAL_NAMES if name in lists]
        if not usual and len(lists) != 1:
            found = "several columns of lists" if lists else "no column of lists"
            raise ValueError(f"has {found}; name the column {USUAL_NAMES[0]!r}")
        column = pq.read_table(path, columns=[usual[0] if usual else lists[0]]).column(0)
    except pa.ArrowException as error:
        raise ValueError(f"not a Parquet file that can be read ({str(error).splitlines()[0][:80]})") from None
    if column.null_count:
        raise ValueError(f"has {column.null_count:,} rows without embedding")
    parts = [_rows_of(chunk) for chunk in column.chunks if len(chunk)]
    if not parts:
        raise ValueError("has no rows")
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(f"has rows of different lengths ({', '.join(map(str, sorted(widths)))})")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _rows_of(chunk: Any) -> EmbeddingArray:
    """A chunk of lists as (n, D)."""
    flat = chunk.flatten()
    if flat.null_count:
        raise ValueError("has rows with empty values")
    if not pa.types.is_floating(flat.type):
        raise ValueError(f"holds lists of {flat.type}; embeddings are float16 or float32")
    if not pa.types.is_fixed_size_list(chunk.type):
        lengths = np.diff(chunk.offsets.to_numpy())
        if (lengths != lengths[0]).any():
            odd = int(np.flatnonzero(lengths != lengths[0])[0])
            raise ValueError(f"has rows of different lengths: {lengths[0]}, and {lengths[odd]} in a later row")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(chunk), -1)
