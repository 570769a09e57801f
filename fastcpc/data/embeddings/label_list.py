"""Labels of embeddings from a list of images: a table in which row i names the image of embedding i.

``label_table.py`` calls it. Labels have the same forms as in an image list; rows are never left out or reordered.
"""

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcpc.arrays import Ints
from fastcpc.data.datasets.image_list import SPLIT_OF
from fastcpc.data.datasets.listing import UNKNOWN, shorten
from fastcpc.data.labels.columns import LABEL, PATH, SPLIT, TRUSTED, find_column, is_number, is_path_like, renamed_note
from fastcpc.data.labels.label_values import (
    MISSING,
    Say,
    find_missing,
    is_whole,
    refuse_missing,
    texts_of,
    without_fraction,
)
from fastcpc.data.labels.list_classes import numbers_count, own_classes
from fastcpc.data.labels.table_reader import Table
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")

UNLABELLED = "give every embedding a label, or remove its row from both files"


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


@dataclass(frozen=True)
class Roles:
    """Positions of the columns of a list; None where it has no such column."""

    path: int
    label: int
    split: int | None
    trusted: int | None


def list_columns(table: Table) -> Roles | None:
    """The columns of a list; None where no column has paths. InputError for a list without labels."""
    if not table.has_header:
        is_list = len(table.header) == 2 and is_path_like(str(table.column(0)[0]))
        return Roles(0, 1, None, None) if is_list else None
    where = f"{table.file}:1"
    path = find_column(table.header, PATH, where)
    if path is None or (table.header[path] != PATH and _are_numbers(table, path)):
        return None
    label, split, trusted = (find_column(table.header, role, where) for role in (LABEL, SPLIT, TRUSTED))
    if label is None:
        raise InputError(f"{where}: no column label; the first line must name the columns path and label")
    return Roles(path, label, split, trusted)


def read_list(
    key: str, table: Table, roles: Roles, num_rows: int, class_names: Sequence[str] | None = None
) -> LabelTable:
    """The labels of a list. key, class_names: as ``read_embedding_labels``. Raises InputError with file and line."""
    if table.num_rows != num_rows:
        raise InputError(
            f"{table.file}: {table.num_rows:,} labels, expected {num_rows:,}, one per row of the embeddings ({key}); a "
            "row i of the table belongs to embedding i"
        )
    if "index" in table.header:
        _check_order(table, _column(table, table.header.index("index")))
    paths, texts = _column(table, roles.path), _column(table, roles.label)
    no_path = next((row for row, text in enumerate(paths) if not text), None)
    if no_path is not None:
        raise InputError(f"{table.place(no_path)} has no path")
    known = () if class_names is None else class_names
    refuse_missing(texts, find_missing(texts, known), table.place, UNLABELLED)
    true_texts = [] if roles.trusted is None else _column(table, roles.trusted)
    unknown = find_missing(true_texts, known)
    ids, number_of, notes = _classes(table, texts, true_texts, unknown, class_names)
    labels = np.array([number_of[text] for text in texts], np.int64)
    trusted = np.array([UNKNOWN if text in unknown else number_of[text] for text in true_texts], np.int64)
    names = ids
    own_names = "class" in table.header and table.header.index("class") != roles.label
    if class_names is None and own_names and all(text.isdigit() for text in ids):
        names = _names_of_classes(table.file, labels, _column(table, table.header.index("class")), ids)
    splits = np.array(_splits(table, roles.split))
    columns = {PATH: roles.path, LABEL: roles.label, SPLIT: roles.split, TRUSTED: roles.trusted}
    renamed = renamed_note(table.header, columns) if table.has_header else "no header, read as path and label"
    if notes := [note for note in (*table.notes, renamed, *notes) if note]:
        logger.warning("%s: %s", table.file, "; ".join(notes))
    has_true = (trusted != UNKNOWN).any()
    return LabelTable(labels, names, tuple(paths), trusted if has_true else None, splits, has_paths=True)


def label_classes(
    table: Table, texts: Sequence[str], true_texts: Sequence[str], unknown: set[str]
) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    """Names of the classes that labels define, the class number of each text, and notes for the user."""
    labels, trusted = set(texts), set(true_texts) - unknown
    found = own_classes(labels, trusted, labels, len(texts), _say(table, texts, true_texts))
    return found.ids, found.number_of, found.notes


def known_numbers(distinct: set[str], class_names: Sequence[str], say: Say) -> dict[str, int]:
    """The class number of each text of a test file: a name, or a class number where no name is one."""
    class_of = {name: k for k, name in enumerate(class_names)}
    if numbers_count(class_of):
        class_of |= {str(k): k for k in range(len(class_names))}
    number_of = {}
    for text in sorted(distinct):
        found = class_of.get(text, class_of.get(unicodedata.normalize("NFC", text)))
        if found is None and is_whole(text):
            found = class_of.get(without_fraction(text))
        if found is None:
            raise say(text, "is no class of the training embeddings; correct it, or remove the row from both files")
        number_of[text] = found
    return number_of


def _classes(
    table: Table, texts: list[str], true_texts: list[str], unknown: set[str], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    if class_names is None:
        return label_classes(table, texts, true_texts, unknown)
    distinct = set(texts) | (set(true_texts) - unknown)
    return tuple(class_names), known_numbers(distinct, class_names, _say(table, texts, true_texts)), []


def _say(table: Table, texts: Sequence[str], true_texts: Sequence[str]) -> Say:
    def say(label: str, problem: str) -> InputError:
        problem = problem.partition(", or name ")[0]  # data.classes is not read with embeddings
        is_given = label in texts
        row = (texts if is_given else true_texts).index(label)
        return InputError(f"{table.place(row)}: {'label' if is_given else 'true label'} {shorten(label)!r} {problem}")

    return say


def _column(table: Table, place: int) -> list[str]:
    """A column of a table as texts, in its order; empty where a value is missing."""
    return texts_of(table.column(place))


def _are_numbers(table: Table, place: int) -> bool:
    return all(is_number(text) for text in _column(table, place) if text not in MISSING)


def _check_order(table: Table, index: Sequence[str]) -> None:
    odd = next((row for row, text in enumerate(index) if without_fraction(text) != str(row)), None)
    if odd is not None:
        raise InputError(
            f"{table.file}: row {odd} has index {shorten(index[odd])!r}, expected {odd}: rows must be in the order of "
            "the embeddings, and index counts them from 0"
        )


def _splits(table: Table, place: int | None) -> list[str]:
    if place is None:
        return ["train"] * table.num_rows
    texts = _column(table, place)
    part_of = {text: "train" if text in MISSING else SPLIT_OF.get(text.lower()) for text in set(texts)}
    odd = next((row for row, text in enumerate(texts) if part_of[text] is None), None)
    if odd is not None:
        raise InputError(f"{table.place(odd)} has split {shorten(texts[odd])!r}; expected train, val or test")
    return [str(part_of[text]) for text in texts]


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
