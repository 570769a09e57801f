"""Reads external label files, one label per training sample, without running code from them.

Tables (CSV, TSV, text, Parquet) name their samples or are in the order of the data set. JSON, NumPy and CIFAR-N's .pt
are always in that order. Repairs that leave no doubt are logged in one note per file.
"""

import json
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.array_reader import Unread, read_npy, read_npz, read_torch
from fastcpc.data.labels.class_numbers import class_numbers
from fastcpc.data.labels.columns import ALIASES, LABEL, plain_name
from fastcpc.data.labels.repeated_rows import first_rows
from fastcpc.data.labels.row_order import RowOrder, order_of_rows
from fastcpc.data.labels.safe_pickle import PickledArray
from fastcpc.data.labels.table_reader import TABLE_ENDINGS, Place, Table, read_bytes, read_table
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")

# Columns used where noise.key is empty, in this order: own files, UNICON's, a run's labels.npz, LongReMix's.
USUAL_KEYS = ("labels", "label", "given", "given_label", "noise_labels")
# Columns of true labels. They show whether the file is in the order of the data set.
TRUSTED_KEYS = ("clean_label", "trusted", "trusted_label", "true_label")
ENDINGS = (".json", ".npy", ".npz", ".pt", *TABLE_ENDINGS)
ARRAYS = (".npy", ".npz", ".pt")


def read_label_file(file: str, key: str, dataset: Dataset) -> np.ndarray:
    """Read the given labels of a training set.

    file: path with one of ENDINGS. key: name of the column; empty selects the only or the usual one. dataset: its
    training part gives the number of labels and the classes. Returns int64 (N,) in its order.
    Raises InputError, one line with file and place, for invalid labels.
    """
    path = _checked_path(file)
    if path.suffix.lower() in TABLE_ENDINGS:
        labels, notes = _from_table(read_table(path), key, dataset)
    else:
        labels, notes = _from_columns(path, key, dataset)
    if notes := [note for note in notes if note]:
        logger.warning("%s: %s", path, "; ".join(notes))
    return labels


def _checked_path(file: str) -> Path:
    if not file:
        raise InputError("noise.file is empty: noise.kind=file needs the path of a label file")
    path = Path(file).expanduser()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; noise.file must be a {_listed(ENDINGS)} file")
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: unknown kind of label file; use {_listed(ENDINGS)}")
    return path


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _from_table(table: Table, key: str, dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    """Labels of a table, whose rows may name their samples, and notes."""
    order = order_of_rows(table, dataset, key)
    label = _label_column(table, order.column, key)
    trusted = next((place for place, name in enumerate(table.header) if name in TRUSTED_KEYS and place != label), None)
    name = table.header[label]
    notes = [*table.notes, *order.notes]
    if name and name != key and name not in USUAL_KEYS:
        notes.append(f"column {name!r} as {LABEL}")
    values = table.column(label)
    if order.samples is None and len(values) != len(dataset.train):
        raise _wrong_length(table.file, name, len(values), len(dataset.train))
    given, given_notes = class_numbers(values, table.place, dataset, from_array=False)
    rows, repeat_note = _rows_in_order(table, order, given, [str(value) for value in values], dataset)
    if trusted is not None:
        true = class_numbers(table.column(trusted), table.place, dataset, from_array=False, optional=True)[0][rows]
        _same_order(
            true, dataset.train.labels, lambda sample: f"{table.place(int(rows[sample]))}: {table.header[trusted]}"
        )
    elif not order.by_path:
        _need_published_order(table.file, dataset)
    return given[rows], [*notes, *given_notes, repeat_note]


def _label_column(table: Table, identity: int | None, key: str) -> int:
    """Position of the column of labels. identity: position of the column that identifies samples."""
    header = table.header
    if not table.has_header:
        width = len(header)
        if key:
            raise InputError(f"{table.file}:1: no header, so no column {key!r} (noise.key); leave noise.key empty")
        if width > 2:
            raise InputError(f"{table.file}:1: {width} columns and no header; name the columns: path or index, label")
        return width - 1
    others = [place for place, name in enumerate(header) if name and place != identity]
    names = " ".join(", ".join(header[place] for place in others).split())[:200]
    if key:
        if key not in header:
            raise InputError(f"{table.file}:1: no column {key!r} (noise.key); it has {names}")
        return header.index(key)
    usual = next((header.index(name) for name in USUAL_KEYS if name in header), None)
    if usual is not None:
        return usual
    found = [place for place in others if plain_name(header[place]) in (LABEL, *ALIASES[LABEL])]
    if len(found) == 1:
        return found[0]
    if not found and len(others) == 1:
        return others[0]
    raise InputError(f"{table.file}:1: several columns ({names}); set noise.key to that of the labels")


def _rows_in_order(
    table: Table, order: RowOrder, given: np.ndarray, texts: list[str], dataset: Dataset
) -> tuple[np.ndarray, str]:
    """The row of each training sample, int64 (N,), and a note on rows that were left out."""
    num_samples = len(dataset.train)
    if order.samples is None:
        return np.arange(num_samples), ""
    assert order.column is not None
    names = table.column(order.column)
    number_of = dict(zip(texts, given.tolist(), strict=True))
    ids = [str(sample) if sample >= 0 else f"row {row}" for row, sample in enumerate(order.samples)]
    kept, note = first_rows(ids, [(texts, number_of)], table.place, lambda row: str(names[row])[:80])
    rows = np.full(num_samples, -1)
    for row in kept:
        if order.samples[row] >= 0:
            rows[order.samples[row]] = row
    absent = np.flatnonzero(rows < 0)
    if len(absent):
        train = dataset.train
        first = train.names[absent[0]] if order.by_path else str(train.source_index[absent[0]])
        raise InputError(f"{table.file}: no row for {len(absent):,} training samples ({first!r}); add their labels")
    return rows, note


def _from_columns(path: Path, key: str, dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    """Labels of a file of lists or arrays, in the order of the data set, and notes."""
    num_samples = len(dataset.train)
    try:
        columns = _read_columns(path, num_samples)
    except (ValueError, pickle.UnpicklingError) as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: {error}") from None
    vectors = {name: vector for name, raw in columns.items() if (vector := _vector(raw)) is not None}
    name = _choose(path, vectors, key)
    from_array = path.suffix.lower() in ARRAYS

    def read(name: str, optional: bool) -> tuple[np.ndarray, list[str]]:
        values = vectors[name]
        where = f"{path}: {name}" if name else str(path)
        if isinstance(values, Unread):
            raise InputError(f"{where}: {values.reason}")
        if len(values) != num_samples:
            raise _wrong_length(path, name, len(values), num_samples)
        plain = values if isinstance(values, list) else values.tolist()  # type: ignore[attr-defined]
        return class_numbers(plain, lambda row: f"{where}: entry {row}", dataset, from_array, optional)

    trusted = next((key for key in TRUSTED_KEYS if key in vectors), None)
    if trusted is not None:
        true = read(trusted, name != trusted)[0]
        _same_order(true, dataset.train.labels, lambda row: f"{path}: {trusted}: entry {row}")
    else:
        _need_published_order(path, dataset)
    return read(name, False)


def _read_columns(path: Path, num_samples: int) -> dict[str, Any]:
    """Columns by name, "" for a file that is one bare list. Only lists and vectors are used."""
    content = read_bytes(path)
    ending = path.suffix.lower()
    if ending == ".json":
        return _read_json(content)
    if ending == ".npy":
        return {"": read_npy(content)}
    return read_npz(content, num_samples) if ending == ".npz" else read_torch(content)


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


def _wrong_length(path: Path, name: str, length: int, num_samples: int) -> InputError:
    reason = "write one label per training sample"
    if name == "noise_labels" and length < num_samples:
        reason = "the rest is a validation set and the file does not say which samples that is, so it cannot be used"
    what = f"{name}: " if name else ""
    return InputError(f"{path}: {what}{length:,} labels, expected {num_samples:,}; {reason}")


def _need_published_order(path: Path, dataset: Dataset) -> None:
    if not dataset.published_order:
        raise InputError(
            f"{path}: gives labels by position, but this copy of {dataset.name} is not in the published order;"
            f" use a file that has the true labels too (a column {TRUSTED_KEYS[0]!r}), or the published files"
        )


def _same_order(true: np.ndarray, labels: np.ndarray, place: Place) -> None:
    """InputError where true labels of the file are not those of the data set; -1 is an unknown one."""
    different = np.flatnonzero((true != labels) & (true >= 0))
    if len(different):
        row = int(different[0])
        raise InputError(
            f"{place(row)} is {true[row]} where the data set has {labels[row]} ({len(different):,}"
            f" of {len(labels):,} differ): the file is in another order than the data set, or belongs to another one"
        )
