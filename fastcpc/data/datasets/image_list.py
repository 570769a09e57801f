"""Reads a user's list of images: CSV, TSV or Parquet with named columns, or lines "path label"."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.data.datasets.listing import read_lines, shorten
from fastcpc.errors import InputError

COLUMNS = ("path", "label", "split", "trusted_label")
NEEDED = ("path", "label")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a list, as the text of the file. split and trusted_label are empty where not given.

    place: file and line (or row), for messages.
    """

    place: str
    path: str
    label: str
    split: str = ""
    trusted_label: str = ""


def read_list(file: str) -> list[Row]:
    """The images of a list in its order. Raises InputError with file and line where the file is not a valid list."""
    path = Path(file).expanduser()
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"data.list={file}: unknown kind of list; use {', '.join(ENDINGS)}")
    if not path.is_file():
        raise InputError(f"data.list={file}: {'is a folder' if path.is_dir() else 'no such file'}")
    if ending == ".txt":
        rows = list(_text_rows(path))
    elif ending == ".parquet":
        rows = list(_parquet_rows(path))
    else:
        rows = list(_separated_rows(path, SEPARATORS[ending]))
    if not rows:
        raise InputError(f"{path}: lists no images")
    for row in rows:
        for name in NEEDED:
            if not getattr(row, name):
                raise InputError(f"{row.place} has no {name}")
    return rows


def _text_rows(path: Path) -> Iterator[Row]:
    for line in read_lines(path):
        parts = line.text.rsplit(None, 1)
        if len(parts) != 2:
            raise line.problem(f"has no label: {shorten(line.text)!r}; expected 'path label'")
        yield Row(f"{path}: line {line.number}", parts[0], parts[1])


def _separated_rows(path: Path, separator: str) -> Iterator[Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    try:
        for fields in reader:
            if not fields:
                continue
            if header is None:
                header = [field.strip() for field in fields]
                _check_header(path, header)
                continue
            if len(fields) != len(header):
                hint = "; a path that holds a comma must stand in quotes" if len(fields) > len(header) else ""
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(fields)} fields, expected {len(header)} "
                    f"({', '.join(header)}){hint}"
                )
            values = {name: field.strip() for name, field in zip(header, fields, strict=True) if name in COLUMNS}
            yield Row(f"{path}: line {reader.line_num}", **values)
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        schema = pq.read_schema(path)
        _check_header(path, schema.names)
        table = pq.read_table(path, columns=[name for name in COLUMNS if name in schema.names])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0][:80]})") from None
    for number, row in enumerate(table.to_pylist()):
        values = {name: "" if value is None else str(value) for name, value in row.items()}
        yield Row(f"{path}: row {number}", **values)


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise InputError(
            f"{path}: no column {' and '.join(missing)}; the first line must name the columns: path, label and, where "
            f"known, split and trusted_label; it has {shorten(', '.join(header))}"
        )
    if len(set(header)) != len(header):
        raise InputError(f"{path}: a column name occurs twice: {shorten(', '.join(header))}")
