"""Labels of embeddings, with paths, class names and splits where the file has them.

A table (csv, tsv, Parquet) with a column of paths is a list of images, row i for embedding i. Every other file is a
label file, as noise.file. Without known classes, whole numbers are class numbers from 0 or from 1.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcpc.arrays import Ints
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset, EmbeddingSplit
from fastcpc.data.embeddings.array_file import EmbeddingArray
from fastcpc.data.embeddings.label_list import LabelTable, label_classes, list_columns, read_list
from fastcpc.data.labels.columns import LABEL, find_column
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.data.labels.label_values import find_missing, is_whole, texts_of
from fastcpc.data.labels.table_reader import TABLE_ENDINGS, Table, read_table
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")


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
    names = class_names
    if path.suffix.lower() in TABLE_ENDINGS:
        table = read_table(path)
        roles = list_columns(table)
        if roles is not None:
            return read_list(key, table, roles, len(array), class_names)
        names = _named_classes(table) if class_names is None else class_names
    first = _first_number(names)
    labels = read_label_file(str(path), "", _unlabelled(array, names, first)) - first
    if names is None:
        labels, names = _numbered(path, labels)
    elif first and labels.min() < 0:
        row = int(labels.argmin())
        raise InputError(f"{path}: row {row}: label 0 is no class of the training embeddings, which count from 1")
    return LabelTable(labels, tuple(names), made_up_names(len(labels)), None, np.full(len(labels), "train"), False)


def made_up_names(num_rows: int) -> tuple[str, ...]:
    """Names of samples without a path."""
    return tuple(f"embedding/{row}" for row in range(num_rows))


def _named_classes(table: Table) -> tuple[str, ...] | None:
    """The classes of a label file whose labels are names; None where they are numbers, or not found."""
    header = table.header
    place = find_column(header, LABEL, f"{table.file}:1") if table.has_header else None
    if place is None:
        if sum(map(bool, header)) > 1 or len(header) > 2:
            return None
        place = len(header) - 1
    texts = texts_of(table.column(place))
    if all(is_whole(text) for text in texts) or find_missing(texts):
        return None  # the reader of label files names missing labels
    names, _, notes = label_classes(table, texts, [], set())
    if notes := [note for note in notes if note]:
        logger.warning("%s: %s", table.file, "; ".join(notes))
    return names


def _first_number(names: Sequence[str] | None) -> int:
    """1 where known classes are numbers that count from 1; files have these numbers then."""
    return int(names is not None and tuple(names) == tuple(str(k + 1) for k in range(len(names))))


def _numbered(path: Path, labels: Ints) -> tuple[Ints, tuple[str, ...]]:
    """Class numbers from 0, and the numbers of the file as names. Labels may count from 0 or from 1."""
    low, high = int(labels.min()), int(labels.max())
    first = int(low == 1)
    if first:
        logger.warning("%s: labels count from 1: label 1 is class 0", path)
    names = tuple(str(k) for k in range(first, high + 1))
    if len(names) < 2:
        raise InputError(f"{path}: {len(names)} class; at least two are required")
    return labels - first, names


def _unlabelled(array: EmbeddingArray, class_names: Sequence[str] | None, first: int) -> Dataset:
    """What the reader of label files needs: the number of samples, and classes. Unknown classes: as many as samples.

    first: 1 where the classes are numbers from 1, which have no names here.
    """
    num_rows = len(array)
    rows = np.arange(num_rows)
    split = EmbeddingSplit(array, rows, np.zeros(num_rows, np.int64), None, rows, made_up_names(num_rows))
    known = ("",) * max(num_rows + 1, 2) if class_names is None else tuple(class_names)
    known = ("",) * (len(known) + 1) if first else known
    return Dataset("embeddings", known, split, {}, (), (), WeakPolicy(flip=False, padding=0))
