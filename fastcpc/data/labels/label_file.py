"""Reads external label files, one label per training sample, without running code from them.

The formats are JSON, NumPy, CSV and CIFAR-N's .pt. A reader turns a file into named columns. This module selects the
column and checks its length and values.
"""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.array_reader import MAX_BYTES, Unread, read_npy, read_npz, read_torch
from fastcpc.data.labels.csv_reader import read_csv
from fastcpc.data.labels.safe_pickle import PickledArray
from fastcpc.errors import InputError

# Columns used where noise.key is empty, in this order: own files, UNICON's, a run's labels.npz, LongReMix's.
USUAL_KEYS = ("labels", "label", "given", "given_label", "noise_labels")
# Columns of true labels. They show whether the file is in the order of the data set.
TRUSTED_KEYS = ("clean_label", "trusted", "trusted_label", "true_label")

Place = Callable[[int], str]


@dataclass(frozen=True)
class Table:
    """A label file as it was read.

    columns: by name, "" for a file that is one bare list; only lists and vectors are used.
    place: the position of row i in the file, for messages. by_position: rows are samples by position, not by name.
    """

    columns: dict[str, Any]
    place: Place
    by_position: bool = True


def read_label_file(file: str, key: str, dataset: Dataset) -> np.ndarray:
    """Read the given labels of a training set.

    file: path of a .json, .npy, .npz, .csv or .pt. key: name of the column; empty selects the only or the usual one.
    dataset: its training part gives the number of labels and the classes. Returns int64 (N,) in its order.
    Raises InputError, one line with file and place, for invalid labels.
    """
    path, content = _open(file)
    num_samples = len(dataset.train)
    try:
        table = _read(path, content, dataset)
    except (ValueError, pickle.UnpicklingError) as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: {error}") from None
    vectors = {name: vector for name, raw in table.columns.items() if (vector := _vector(raw)) is not None}
    name = _choose(path, vectors, key)
    for trusted_key in TRUSTED_KEYS:
        if trusted_key in vectors:
            trusted = _checked(path, trusted_key, vectors[trusted_key], num_samples, dataset.num_classes, table.place)
            _same_order(path, trusted_key, trusted, dataset.train.labels, table.place)
            break
    else:
        if table.by_position and not dataset.published_order:
            raise InputError(
                f"{path}: gives labels by position, but this copy of {dataset.name} is not in the published order;"
                f" use a file that has the true labels too (a column {TRUSTED_KEYS[0]!r}), or the published files"
            )
    return _checked(path, name, vectors[name], num_samples, dataset.num_classes, table.place)


def _open(file: str) -> tuple[Path, bytes]:
    if not file:
        raise InputError("noise.file is empty: noise.kind=file needs the path of a label file")
    path = Path(file).expanduser()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; noise.file must be a .json, .npy, .npz, .csv or .pt file")
    if path.suffix.lower() not in (".json", ".npy", ".npz", ".csv", ".pt"):
        raise InputError(f"{path}: unknown kind of label file; use .json, .npy, .npz, .csv or .pt")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a file that can be read")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes is too large for a label file")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not content:
        raise InputError(f"{path}: is empty")
    return path, content


def _read(path: Path, content: bytes, dataset: Dataset) -> Table:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        columns, lines, by_position = read_csv(content, dataset.train)
        return Table(columns, lambda row: f"line {lines[row]}", by_position)
    if suffix == ".json":
        columns = _read_json(content)
    elif suffix == ".npy":
        columns = {"": read_npy(content)}
    elif suffix == ".npz":
        columns = read_npz(content, len(dataset.train))
    else:
        columns = read_torch(content)
    return Table(columns, lambda row: f"entry {row}")


def _read_json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON, or truncated: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise ValueError("not JSON: not text in UTF-8") from None
    except RecursionError:
        raise ValueError("not a label file: JSON nested too deeply") from None
    if isinstance(value, list):
        return {"": value}
    if isinstance(value, dict):
        return value
    raise ValueError(f"holds a single {type(value).__name__}, expected a list of labels or a dict with one")


def _vector(raw: Any) -> Sequence[Any] | Unread | None:
    """A list, or a one-dimensional array or tensor, as it is; None for what cannot be labels."""
    if isinstance(raw, PickledArray):
        raw = raw.array
    if isinstance(raw, torch.Tensor) and (raw.layout != torch.strided or raw.is_quantized or raw.is_meta):
        return None
    if isinstance(raw, (np.ndarray, torch.Tensor)):
        return raw if raw.ndim == 1 else None  # type: ignore[return-value]
    return raw if isinstance(raw, (list, Unread)) else None


def _choose(path: Path, vectors: dict[str, Sequence[Any] | Unread], key: str) -> str:
    names = [str(name) for name in vectors if name]
    listed = f"it holds {', '.join(names)}" if names else "its labels have no name, leave noise.key empty"
    if not vectors:
        raise InputError(f"{path}: holds no list of labels")
    if key:
        if key not in vectors:
            raise InputError(f"{path}: no {key!r} in it (noise.key); {listed}")
        return key
    if len(vectors) == 1:
        return next(iter(vectors))
    usual = next((name for name in USUAL_KEYS if name in vectors), None)
    if usual is None:
        raise InputError(f"{path}: holds several lists, set noise.key to one of {', '.join(names)}")
    return usual


def _checked(
    path: Path, name: str, values: Sequence[Any] | Unread, num_samples: int, num_classes: int, place: Place
) -> np.ndarray:
    """The labels as int64 (N,). InputError names the first invalid value."""
    what = f"{name}: " if name else ""
    if isinstance(values, Unread):
        raise InputError(f"{path}: {what}{values.reason}")
    if len(values) != num_samples:
        reason = ""
        if name == "noise_labels" and len(values) < num_samples:
            reason = (
                "; the rest is a validation set and the file does not say which samples that is, so it cannot be used"
            )
        raise InputError(
            f"{path}: {what}{len(values):,} labels, expected {num_samples:,}, one a training sample{reason}"
        )
    plain = values if isinstance(values, list) else values.tolist()  # type: ignore[attr-defined]
    for row, value in enumerate(plain):
        if type(value) is not int:
            raise InputError(f"{path}: {what}{place(row)} is {_shown(value)}, which is not a whole number")
        if not 0 <= value < num_classes:
            raise InputError(f"{path}: {what}{place(row)} is {_shown(value)}, outside 0..{num_classes - 1}")
    return np.array(plain, np.int64)


def _shown(value: Any) -> str:
    """A value for a message: short, on one line."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    return repr(value)[:40]


def _same_order(path: Path, name: str, trusted: np.ndarray, labels: np.ndarray, place: Place) -> None:
    different = np.flatnonzero(trusted != labels)
    if len(different):
        row = int(different[0])
        raise InputError(
            f"{path}: {name}: {place(row)} is {trusted[row]} where the data set has {labels[row]} ({len(different):,}"
            f" of {len(labels):,} differ): the file is in another order than the data set, or belongs to another one"
        )
