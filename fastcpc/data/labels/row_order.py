"""Finds the training image of each row of a label table: by path, by index, or by position.

Rows go by position only where no column identifies the image. A column whose meaning is in doubt is refused.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastcpc.data.dataset import AnySplit, Dataset, ImageSplit
from fastcpc.data.labels.columns import (
    ALIASES,
    ID,
    INDEX,
    LABEL,
    PATH,
    SAMPLE,
    TRUSTED,
    find_column,
    is_path_like,
    plain_name,
)
from fastcpc.data.labels.table_reader import Table
from fastcpc.data.paths import same_name
from fastcpc.errors import InputError

DIGITS = re.compile(r"[0-9]{1,18}(\.0*)?")


@dataclass(frozen=True)
class RowOrder:
    """Which training image each row is.

    column: position of the column that identifies images; None where rows go by position. samples: position in the
    training set per row, -1 for an image of another split; None where rows go by position. by_path: whether paths
    identify images, so that the order of the data set does not matter.
    """

    column: int | None
    samples: list[int] | None
    by_path: bool
    notes: list[str]


def order_of_rows(table: Table, dataset: Dataset, key: str) -> RowOrder:
    """Find the column that identifies images. key: name of the column of labels, or empty.

    Raises InputError with the line of the first row that names no image, and for columns whose meaning is in doubt.
    """
    header = table.header
    where = f"{table.file}:1" if table.file.suffix.lower() != ".parquet" else str(table.file)
    path = find_column(header, PATH, where)
    if path is not None:
        values = table.column(path)
        if plain_name(header[path]) != PATH and _are_numbers(values):
            return _by_index(table, path, dataset, [f"column {header[path]!r} as index"])
        return _by_path(table, path, dataset, _renamed(header[path], PATH))
    index = find_column(header, INDEX, where)
    if index is not None:
        return _by_index(table, index, dataset, _renamed(header[index], INDEX))
    taken = _label_columns(header, key)
    ids = [place for place, name in enumerate(header) if plain_name(name) == ID and place not in taken]
    for place in ids:
        if _are_numbers(table.column(place)):
            return _by_index(table, place, dataset, [f"column {header[place]!r} as index"])
        return _by_path(table, place, dataset, _renamed(header[place], PATH))
    return _by_content(table, dataset, taken)


def _label_columns(header: Sequence[str], key: str) -> set[int]:
    known = {LABEL, TRUSTED, *ALIASES[LABEL], *ALIASES[TRUSTED]}
    return {place for place, name in enumerate(header) if plain_name(name) in known or (key and name == key)}


def _by_content(table: Table, dataset: Dataset, taken: set[int]) -> RowOrder:
    """Columns with names of files are paths, also under an unknown name. Else rows go by position."""
    header = table.header
    if not table.has_header and len(header) == 2:
        by = _by_index if _are_numbers(table.column(0)) else _by_path
        return by(table, 0, dataset, [])
    others = [place for place in range(len(header)) if place not in taken] if table.has_header else []
    if len(header) == 1:
        others = []
    values = {place: table.column(place) for place in others}
    paths = [place for place in others if _are_paths(values[place], dataset)]
    if len(paths) > 1:
        names = " and ".join(repr(header[place]) for place in paths)
        raise InputError(f"{table.file}:1: {names} both hold paths; rename one of them to {PATH}")
    if paths:
        return _by_path(table, paths[0], dataset, _renamed(header[paths[0]] or "without a name", PATH))
    for place in others:
        if _are_numbers(values[place]):
            _refuse_other_order(table, place, values[place], dataset)
    ignored = ", ".join(repr(header[place]) if header[place] else "without a name" for place in others)
    notes = [f"rows by position, column{'s' if len(others) > 1 else ''} {ignored} not read"] if ignored else []
    return RowOrder(None, None, False, notes)


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether a column holds whole numbers from 0, written as a spreadsheet or pandas does."""
    head = values[:SAMPLE]
    return all(DIGITS.fullmatch(str(value)) for value in head) and all(DIGITS.fullmatch(str(v)) for v in values)


def _are_paths(values: Sequence[Any], dataset: Dataset) -> bool:
    """Whether a column holds file names or names of training images."""
    head = [value for value in values[:SAMPLE] if isinstance(value, str)]
    names = set(dataset.train.names) if head else set()
    return bool(head) and (all(is_path_like(value) or value in names for value in head))


def _refuse_other_order(table: Table, place: int, values: Sequence[Any], dataset: Dataset) -> None:
    """InputError where a column numbers the training images in another order than that of the rows."""
    numbers = [int(float(value)) for value in values]
    indexes = dataset.train.source_index.tolist()
    for expected in (indexes, list(range(len(indexes)))):
        if numbers != expected and len(numbers) == len(expected) and sorted(numbers) == sorted(expected):
            row = next(row for row, number in enumerate(numbers) if number != expected[row])
            name = repr(table.header[place]) if table.header[place] else "without a name"
            raise InputError(
                f"{table.place(row)}: column {name} has {numbers[row]} where rows by position have {expected[row]}; "
                f"rename it to {INDEX} if it gives the position of the image, else remove it"
            )


def _renamed(name: str, role: str) -> list[str]:
    return [f"column {name!r} as {role}"] if name and name != role else []


def _by_index(table: Table, place: int, dataset: Dataset, notes: list[str]) -> RowOrder:
    values = table.column(place)
    row_of = {index: row for row, index in enumerate(dataset.train.source_index.tolist())}
    samples = []
    for row, value in enumerate(values):
        text = str(value)
        sample = row_of.get(int(float(text) if "." in text else text)) if DIGITS.fullmatch(text) else None
        if sample is None:
            raise InputError(f"{table.place(row)}: {text[:80]!r} is no training image's index; correct the index")
        samples.append(sample)
    return RowOrder(place, samples, False, notes)


def _by_path(table: Table, place: int, dataset: Dataset, notes: list[str]) -> RowOrder:
    values = [value if isinstance(value, str) else str(value) for value in table.column(place)]
    keys = list(map(same_name, values))
    row_of = {same_name(name): row for row, name in enumerate(dataset.train.names)}
    other = {same_name(name) for split in dataset.tests.values() if split is not dataset.train for name in split.names}
    unknown = [row for row, key in enumerate(keys) if key not in row_of and key not in other]
    if unknown:
        repaired, note = _repaired(values, row_of, other, dataset.train)
        if repaired is None:
            raise InputError(
                f"{table.place(unknown[0])}: {values[unknown[0]][:80]!r} is no training image's path "
                f"({len(unknown):,} in all); write paths as {dataset.train.names[0][:80]!r}"
            )
        keys, notes = repaired, [*notes, note]
    samples = [row_of.get(key, -1) for key in keys]
    num_other = sum(sample < 0 for sample in samples)
    if num_other:
        notes.append(f"{num_other:,} rows of images that are not for training left out")
    return RowOrder(place, samples, True, notes)


def _repaired(
    values: Sequence[str], row_of: dict[str, int], other: set[str], train: AnySplit
) -> tuple[list[str] | None, str]:
    """The names with one repair that makes all of them known, and its note."""

    def known(keys: list[str]) -> bool:
        return all(key in row_of or key in other for key in keys)

    if any("\\" in value for value in values):
        keys = [same_name(value.replace("\\", "/")) for value in values]
        if known(keys):
            return keys, "paths with backslashes read with slashes"
    if isinstance(train, ImageSplit) and all(value.startswith("/") for value in values):
        base = same_name(train.images.path(0)).removesuffix(same_name(train.names[0]))
        keys = [same_name(value).removeprefix(same_name(os.path.abspath(base)) + "/") for value in values]
        if known(keys):
            return keys, "absolute paths"
    if not any("/" in value or "\\" in value for value in values):
        full = [*row_of, *other]
        by_file = {name.rpartition("/")[2]: name for name in full}
        keys = [by_file.get(same_name(value), value) for value in values]
        if len(by_file) == len(full) and known(keys):
            return keys, "images found by file name without folder"
    return None, ""
