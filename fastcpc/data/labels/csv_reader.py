"""Reads CSV label files: lines "label", "index,label" or "path,label", with or without a header."""

import csv
import io
from typing import Any

from fastcpc.data.dataset import AnySplit

# Columns that identify the sample of a row.
INDEX, PATH = "index", "path"


def read_csv(content: bytes, split: AnySplit) -> tuple[dict[str, Any], list[int], bool]:
    """Read a CSV file into columns in the split's order.

    content: UTF-8. split: rows are matched by its source_index (``index``) or names (``path``), else by position.
    Returns the columns by name, the line of each row, and whether rows go by position. Raises ValueError with the line.
    """
    rows = _rows(content)
    header, rows = _split_header(rows)
    if not rows:
        raise ValueError("has a header but no labels")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"line {line} has {len(row)} fields, expected {len(header)} ({','.join(header)})")
    if PATH not in header and INDEX not in header:
        return _columns(header, rows), [line for line, _ in rows], True
    key = PATH if PATH in header else INDEX
    ordered = _match(rows, header.index(key), key, split)
    return _columns(header, ordered), [line for line, _ in ordered], key == INDEX


def _rows(content: bytes) -> list[tuple[int, list[str]]]:
    """The non-blank lines, with their numbers from 1."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not text in UTF-8 (byte {error.start})") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"not a CSV file: {error} at line {reader.line_num}") from None
    if not rows:
        raise ValueError("holds no labels")
    return rows


def _split_header(rows: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, given or guessed, and the rows of values."""
    first = rows[0][1]
    if not _is_number(first[-1]) and any(field.isidentifier() for field in first):
        if len(set(first)) != len(first):
            raise ValueError("a column name occurs twice in the header")
        return first, rows[1:]
    if len(first) == 1:
        return ["label"], rows
    if len(first) == 2:
        return [INDEX if _is_number(first[0]) else PATH, "label"], rows
    raise ValueError(f"{len(first)} columns and no header: name the columns in the first line (index or path, label)")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _match(rows: list[tuple[int, list[str]]], column: int, key: str, split: AnySplit) -> list[tuple[int, list[str]]]:
    """The rows in the split's order; each sample must be named once."""
    names = split.names if key == PATH else [str(number) for number in split.source_index.tolist()]
    place = {name: row for row, name in enumerate(names)}
    found: dict[int, tuple[int, list[str]]] = {}
    for line, row in rows:
        sample = place.get(row[column])
        if sample is None:
            raise ValueError(f"line {line} names {row[column][:80]!r}, which is no training sample's {key}")
        if sample in found:
            raise ValueError(f"line {line} names {row[column][:80]!r} again, after line {found[sample][0]}")
        found[sample] = (line, row)
    if len(found) < len(names):
        absent = next(row for row in range(len(names)) if row not in found)
        raise ValueError(f"{len(names) - len(found):,} training samples have no line, the first is {names[absent]!r}")
    return [found[row] for row in range(len(names))]


def _columns(header: list[str], rows: list[tuple[int, list[str]]]) -> dict[str, Any]:
    """Columns by name, without those that identify the sample. Whole numbers are int, other values text."""
    return {
        name: [_value(row[column]) for _, row in rows]
        for column, name in enumerate(header)
        if name not in (INDEX, PATH)
    }


def _value(text: str) -> int | str:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else text
