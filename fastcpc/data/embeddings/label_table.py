"""Labels of embeddings, with paths, class names and splits where the file has them.

A table (csv, tsv, Parquet) with a column ``path`` is read as a list of images, row i for embedding i. Every other file
is a label file, as noise.file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcpc.arrays import Ints
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset, EmbeddingSplit
from fastcpc.data.datasets.image_list import SPLIT_OF
from fastcpc.data.datasets.listing import UNKNOWN, shorten
from fastcpc.data.embeddings.array_file import EmbeddingArray
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.data.labels.table_reader import TABLE_ENDINGS, Table, read_table
from fastcpc.errors import InputError

ROW_COLUMNS = ("path", "label", "split", "trusted_label")


@dataclass(frozen=True)
class Row:
    """A row of a list, as texts. place: file and line. Empty: the list does not say."""

    place: str
    path: str
    label: str
    split: str = ""
    trusted_label: str = ""


@dataclass(frozen=True)
class LabelTable:
    """Labels of N embeddings; row i belongs to embedding i.

    labels: int64 (N,) in 0..K-1. class_names: K texts. names: paths, or made-up names. trusted: int64 (N,) true
    labels, -1 where unknown; None where there are none. splits: train, val or test per row. has_paths: whether names
    are paths.
    """

    labels: Ints
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    trusted: Ints | None
    splits: NDArray[np.str_]
    has_paths: bool


def read_embedding_labels(
    key: str, file: str, array: EmbeddingArray, class_names: Sequence[str] | None = None
) -> LabelTable:
    """Read the labels of all embeddings.

    key: the setting, for messages. class_names: those of the training file, for a test file; None: the file defines
    them. Raises InputError, one line with file and place, for labels that do not fit the embeddings.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"{key}={path}: no such file")
    if path.suffix.lower() in TABLE_ENDINGS and path.suffix.lower() != ".txt":
        table = read_table(path)
        if "path" in table.header:
            return _from_list(key, table, len(array), class_names)
    labels = read_label_file(str(path), "", _unlabelled(array, class_names))
    names = class_names
    if names is None:
        names = tuple(str(k) for k in range(int(labels.max()) + 1))
        _check_classes(path, names)
    return LabelTable(labels, tuple(names), made_up_names(len(labels)), None, np.full(len(labels), "train"), False)


def made_up_names(num_rows: int) -> tuple[str, ...]:
    """Names of samples without a path."""
    return tuple(f"embedding/{row}" for row in range(num_rows))


def _unlabelled(array: EmbeddingArray, class_names: Sequence[str] | None) -> Dataset:
    """What the reader of label files needs: the number of samples, and classes. Unknown classes: as many as samples."""
    num_rows = len(array)
    rows = np.arange(num_rows)
    split = EmbeddingSplit(array, rows, np.zeros(num_rows, np.int64), None, rows, made_up_names(num_rows))
    known = tuple(class_names) if class_names is not None else ("",) * max(num_rows, 2)
    return Dataset("embeddings", known, split, {}, (), (), WeakPolicy(flip=False, padding=0))


def _rows(table: Table) -> list[Row]:
    """The rows of a list. InputError where a path or a label is missing."""
    if "label" not in table.header:
        raise InputError(f"{table.file}: no column label; the first line must name the columns path and label")
    texts = {name: _column(table, name) for name in ROW_COLUMNS if name in table.header}
    rows = []
    for number in range(table.num_rows):
        row = Row(table.place(number), **{name: values[number] for name, values in texts.items()})
        if not row.path or not row.label:
            raise InputError(f"{row.place} has no {'label' if row.path else 'path'}")
        rows.append(row)
    return rows


def _from_list(key: str, table: Table, num_rows: int, class_names: Sequence[str] | None) -> LabelTable:
    path, columns, rows = table.file, table.header, _rows(table)
    if len(rows) != num_rows:
        raise InputError(
            f"{path}: {len(rows):,} labels, expected {num_rows:,}, one per row of the embeddings ({key}); a row i of "
            "the table belongs to embedding i"
        )
    if "index" in columns:
        _check_order(path, _column(table, "index"))
    texts = [row.label for row in rows]
    ids = _class_ids(path, rows) if class_names is None else tuple(class_names)
    number_of = {text: k for k, text in enumerate(ids)}
    if class_names is not None:  # numbers of the training classes are allowed, too
        number_of |= {str(k): k for k in range(len(ids)) if str(k) not in number_of}
    labels = np.array([_class(row, text, number_of) for row, text in zip(rows, texts, strict=True)], np.int64)
    trusted = np.array([_class(r, r.trusted_label, number_of) if r.trusted_label else UNKNOWN for r in rows], np.int64)
    names = ids
    if class_names is None and "class" in columns and all(text.isdigit() for text in ids):
        names = _names_of_classes(path, labels, _column(table, "class"), ids)
    splits = np.array([_split(row) for row in rows])
    known = trusted if (trusted != UNKNOWN).any() else None
    return LabelTable(labels, names, tuple(row.path for row in rows), known, splits, has_paths=True)


def _column(table: Table, name: str) -> list[str]:
    """A column of a table as texts, in its order; empty where a value is missing."""
    return ["" if value is None else str(value) for value in table.column(table.header.index(name))]


def _check_order(path: Path, index: Sequence[str]) -> None:
    odd = next((row for row, text in enumerate(index) if text != str(row)), None)
    if odd is not None:
        raise InputError(
            f"{path}: row {odd} has index {shorten(index[odd])!r}, expected {odd}: rows must be in the order of the "
            "embeddings, and index counts them from 0"
        )


def _class_ids(path: Path, rows: Sequence[Row]) -> tuple[str, ...]:
    """The classes in order: whole numbers from 0, or names sorted."""
    texts = {row.label for row in rows}
    if all(text.isascii() and text.isdigit() and text == str(int(text)) for text in texts):
        largest = max(int(text) for text in texts)
        if largest > len(rows):
            row = next(row for row in rows if int(row.label) == largest)
            raise InputError(f"{row.place} has label {shorten(row.label)}: labels count from 0, one number per class")
        ids = tuple(str(k) for k in range(largest + 1))
    else:
        ids = tuple(sorted(texts))
    _check_classes(path, ids)
    return ids


def _check_classes(path: Path, names: Sequence[str]) -> None:
    if len(names) < 2:
        raise InputError(f"{path}: {len(names)} class; at least two are required")


def _class(row: Row, text: str, number_of: dict[str, int]) -> int:
    label = number_of.get(text)
    if label is None:
        raise InputError(f"{row.place} has label {shorten(text)!r}, which is no class of the training embeddings")
    return label


def _split(row: Row) -> str:
    split = SPLIT_OF.get(row.split.lower() or "train")
    if split is None:
        raise InputError(f"{row.place} has split {shorten(row.split)!r}; expected train, val or test")
    return split


def _names_of_classes(path: Path, labels: Ints, texts: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes from the column class; the number where a class has no row."""
    names = list(ids)
    for label, row in zip(*np.unique(labels, return_index=True), strict=True):
        names[label] = texts[row] or ids[label]
    odd = next((row for row, text in enumerate(texts) if text and text != names[labels[row]]), None)
    if odd is not None:
        raise InputError(
            f"{path}: row {odd} calls class {labels[odd]} {shorten(texts[odd])!r}, another row calls it "
            f"{shorten(names[labels[odd]])!r}; a class has one name"
        )
    return tuple(names)
