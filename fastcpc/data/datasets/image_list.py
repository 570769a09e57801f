"""Reads a user's list of images: a table with named columns, or lines "path label".

Repairs that leave no doubt are reported in one note. All that could mean two things is refused with its line.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.listing import UNKNOWN, make_split, shorten
from fastcpc.data.image_store import ImageStore
from fastcpc.data.labels.columns import (
    ID,
    LABEL,
    PATH,
    SPLIT,
    TRUSTED,
    find_column,
    is_path_like,
    is_unnamed,
    plain_name,
    renamed_note,
)
from fastcpc.data.labels.label_values import MISSING, find_missing, refuse_missing, texts_of
from fastcpc.data.labels.list_classes import ListClasses, known_classes, own_classes
from fastcpc.data.labels.repeated_rows import Meaning, first_rows
from fastcpc.data.labels.table_reader import TABLE_ENDINGS, Table, read_table
from fastcpc.data.paths import same_name, spelled_on_disk
from fastcpc.errors import InputError

# Names of parts, in any case.
SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
TRIED = 100  # paths that are sought on disk, to see what a backslash means
UNLABELLED = "give these images a label or delete their rows; if it is a class, name it in data.classes"


@dataclass(frozen=True)
class ImageList:
    """The images of a list. splits have its order. note: what was repaired or unusual, "" for nothing."""

    class_ids: tuple[str, ...]
    splits: dict[str, ImageSplit]
    note: str


@dataclass(frozen=True)
class Members:
    """The images inside container files that a list may name. row_of: row in images by canonical name."""

    images: ImageStore
    row_of: Mapping[str, int]


def list_by_file(
    base: Path, list_file: str, known: list[tuple[str, str]] | None, members: Members | None = None
) -> ImageList:
    """Read a list. Paths are relative to base, or absolute. members: what they name instead of files.

    known: (id, name) per class of data.classes. Labels are then ids, names or numbers of these classes. Else they are
    class names, or whole numbers from 0 or 1. Raises InputError with file and line where the file is not a valid list.
    """
    table = _open(list_file)
    columns = _columns(table)
    notes = [*table.notes, *columns.notes]
    paths, path_note = _paths(base, table, columns.paths)
    split_of = _split_of(table, columns.splits)
    classes, trusted_of = _classes(table, columns, known, split_of)
    meanings: list[Meaning] = [(columns.labels, classes.number_of)]
    meanings += [(columns.splits, split_of)] if columns.splits else []
    meanings += [(columns.trusted, trusted_of)] if columns.trusted else []
    rows, repeat_note = first_rows(
        [same_name(path) for path in paths], meanings, table.place, lambda row: shorten(paths[row])
    )
    files = paths if members else spelled_on_disk(base, paths)
    place_of = _member_rows(base, table, paths, rows, members) if members else {}
    splits = {}
    for split, own in _rows_by_split(table, columns.splits, split_of, rows).items():
        labels = [classes.number_of[columns.labels[row]] for row in own]
        trusted = [trusted_of[columns.trusted[row]] for row in own] if columns.trusted else None
        splits[split] = make_split(base, [paths[row] for row in own], labels, trusted, [files[row] for row in own])
        if members:
            chosen = np.array([place_of[row] for row in own], np.int64)
            splits[split] = replace(splits[split], images=members.images.take(chosen))
    empty = sorted(set(range(len(classes.ids))) - set(splits["train"].labels.tolist()))
    if empty:
        raise InputError(
            f"{table.file}: no training image of class {empty[0]} ({shorten(classes.ids[empty[0]])}); add images, or "
            "name the classes that there are in data.classes"
        )
    notes += [path_note, repeat_note, *classes.notes]
    text = "; ".join(note for note in notes if note)
    return ImageList(classes.ids, splits, f"{table.file}: {text}" if text else "")


def _member_rows(
    base: Path, table: Table, paths: Sequence[str], rows: Sequence[int], members: Members
) -> dict[int, int]:
    """The row of the member that each row of the list names. InputError for the first that is no member."""
    inside = same_name(os.path.abspath(base)) + "/"
    found = {row: members.row_of.get(same_name(paths[row]).removeprefix(inside)) for row in rows}
    unknown = [row for row, member in found.items() if member is None]
    if unknown:
        raise InputError(
            f"{table.place(unknown[0])}: {shorten(paths[unknown[0]])!r} is no image of data.root ({len(unknown):,} in "
            f"all); write paths as {shorten(next(iter(members.row_of), ''))!r}"
        )
    return {row: member for row, member in found.items() if member is not None}


@dataclass(frozen=True)
class _Columns:
    """The columns of a list by role, as stripped texts; splits and trusted are empty where the list has none."""

    paths: list[str]
    labels: list[str]
    splits: list[str]
    trusted: list[str]
    notes: list[str]


def _open(list_file: str) -> Table:
    path = Path(list_file).expanduser()
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise InputError(f"data.list={list_file}: unknown kind of list; use {', '.join(TABLE_ENDINGS)}")
    if not path.is_file():
        raise InputError(f"data.list={list_file}: {'is a folder' if path.is_dir() else 'no such file'}; name a file")
    return read_table(path)


def _columns(table: Table) -> _Columns:
    header, notes = table.header, []
    if not table.has_header:
        header = _guessed_header(table)
        notes += ["no header, read as path and label"] if table.file.suffix.lower() != ".txt" else []
    roles = {role: find_column(header, role, f"{table.file}:1") for role in (PATH, LABEL, SPLIT, TRUSTED)}
    if roles[PATH] is None and ID in map(plain_name, header):
        roles[PATH] = [plain_name(name) for name in header].index(ID)
    path, label, split, trusted = (roles[role] for role in (PATH, LABEL, SPLIT, TRUSTED))
    if path is None or label is None:
        absent = " and ".join(role for role, place in ((PATH, path), (LABEL, label)) if place is None)
        names = " ".join(", ".join(header).split())
        raise InputError(
            f"{table.file}:1: no column {absent} ({shorten(names)}); name the columns in the first line: "
            "path, label and, where known, split and trusted_label"
        )
    notes.append(renamed_note(header, roles))
    if table.file.suffix.lower() != ".parquet" and any(map(is_unnamed, header)):
        notes.append("column without a name ignored")
    return _Columns(
        paths=_path_texts(table, path),
        labels=texts_of(table.column(label)),
        splits=[] if split is None else texts_of(table.column(split)),
        trusted=[] if trusted is None else texts_of(table.column(trusted)),
        notes=notes,
    )


def _guessed_header(table: Table) -> list[str]:
    """A list without header is two columns with file names first, or a .txt."""
    if len(table.header) == 2 and (table.file.suffix.lower() == ".txt" or is_path_like(str(table.column(0)[0]))):
        return [PATH, LABEL]
    return [str(table.column(place)[0]) for place in range(len(table.header))]


def _path_texts(table: Table, place: int) -> list[str]:
    values = table.column(place)
    wrong = next((row for row, value in enumerate(values) if not isinstance(value, str) or not value), None)
    if wrong is not None:
        value = "empty" if values[wrong] in ("", None) else repr(values[wrong])
        raise InputError(f"{table.place(wrong)}: no path ({value}); name the image, or delete the row")
    return values


def _paths(base: Path, table: Table, paths: list[str]) -> tuple[list[str], str]:
    """The paths with slashes. A backslash separates folders where files exist that way, and only that way."""
    rows = [row for row, path in enumerate(paths) if "\\" in path]
    if not rows:
        return paths, ""
    tried = rows[:: max(1, len(rows) // TRIED)]
    turned = [row for row in tried if os.path.exists(base / paths[row].replace("\\", "/"))]
    as_is = [row for row in tried if os.path.exists(base / paths[row])]
    if as_is and not turned:
        return paths, ""
    if not turned or as_is:
        why = "both kinds of names exist" if as_is else "no such file, with backslashes or with slashes"
        raise InputError(
            f"{table.place(rows[0])}: backslashes in {shorten(paths[rows[0]])!r} ({why}); write paths relative to "
            "data.root with /"
        )
    return [path.replace("\\", "/") for path in paths], f"{len(rows):,} paths with backslashes read with slashes"


def _split_of(table: Table, splits: list[str]) -> dict[str, str]:
    """The split that each text of the column means; no text means train."""
    split_of: dict[str, str] = {}
    for text in set(splits):
        split = "train" if text in MISSING else SPLIT_OF.get(text.lower())
        if split is None:
            row = splits.index(text)
            raise InputError(f"{table.place(row)}: split {shorten(text)!r}; write train, val or test")
        split_of[text] = split
    if split_of and "train" not in split_of.values():
        raise InputError(
            f"{table.file}: no row has split train ({', '.join(sorted(split_of))}); mark the training images"
        )
    return split_of


def _rows_by_split(
    table: Table, splits: list[str], split_of: dict[str, str], rows: Sequence[int]
) -> dict[str, Sequence[int]]:
    """Rows of each split, train first."""
    if not splits:
        return {"train": rows}
    parts: dict[str, list[int]] = {"train": []}
    for row in rows:
        parts.setdefault(split_of[splits[row]], []).append(row)
    return dict(parts)


def _classes(
    table: Table, columns: _Columns, known: list[tuple[str, str]] | None, split_of: dict[str, str]
) -> tuple[ListClasses, dict[str, int]]:
    """Classes by the labels of the training rows, or by data.classes; and the number of each text of a true label."""
    names = [] if known is None else [text for entry in known for text in entry]
    refuse_missing(columns.labels, find_missing(columns.labels, names), table.place, UNLABELLED)
    labels, unknown = set(columns.labels), find_missing(columns.trusted, names)
    trusted = set(columns.trusted) - unknown

    def say(label: str, problem: str) -> InputError:
        is_given = label in labels
        row = (columns.labels if is_given else columns.trusted).index(label)
        return InputError(f"{table.place(row)}: {'label' if is_given else 'true label'} {shorten(label)!r} {problem}")

    if known is not None:
        classes = known_classes(labels | trusted, known, say)
    else:
        own = {
            label for label, split in zip(columns.labels, columns.splits, strict=False) if split_of[split] == "train"
        }
        classes = own_classes(labels, trusted, own or labels, len(columns.labels), say)
    return classes, {**classes.number_of, **dict.fromkeys(unknown, UNKNOWN)}
