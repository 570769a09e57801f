"""Reads tables of labels: CSV, TSV, plain text and Parquet, for image lists and label files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.data.labels.text_table import read_text_table
from fastcpc.errors import InputError

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".txt")
MAX_BYTES = 1 << 30  # of a label file or list, compressed or not

Place = Callable[[int], str]  # file and line of a row


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    header: names of the columns, "" where one has none. has_header: False where the file names no columns; then header
    has empty names. column: the values of the column at a position: text, numbers, Booleans or None. place: file and
    line of a row, for messages. notes: what is unusual about the file.
    """

    file: Path
    header: list[str]
    has_header: bool
    num_rows: int
    column: Callable[[int], list[Any]]
    place: Place
    notes: tuple[str, ...] = ()


def read_bytes(file: Path) -> bytes:
    """The content of a label file or list. InputError where it cannot be read, is empty or too large."""
    if file.exists() and not file.is_file():
        what = "is a folder" if file.is_dir() else "is not a file that can be read"
        raise InputError(f"{file}: {what}; name a file")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{file}: {file.stat().st_size:,} bytes is too large for labels; split the file")
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path and its rights") from None
    if not content:
        raise InputError(f"{file}: is empty; write one row per image")
    return content


def read_table(file: Path) -> Table:
    """Read a table of one of TABLE_ENDINGS. Raises InputError, one line with file and line."""
    table = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_text(file)
    if not table.num_rows:
        raise InputError(
            f"{file}: {'a header but no rows' if table.has_header else 'no rows'}; write one row per image"
        )
    names = [name for name in table.header if name]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{file}:1: column {twice!r} occurs twice; rename one of them")
    return table


def _read_text(file: Path) -> Table:
    text = read_text_table(read_bytes(file), file)
    width = len(text.header) or (len(text.rows[0]) if text.rows else 0)

    def column(place: int) -> list[str]:
        return [cells[place].strip() for cells in text.rows]

    return Table(
        file=file,
        header=text.header or [""] * width,
        has_header=bool(text.header),
        num_rows=len(text.rows),
        column=column,
        place=lambda row: f"{file}:{text.line(row)}",
        notes=(text.note,) if text.note else (),
    )


def _read_parquet(file: Path) -> Table:
    content = read_bytes(file)

    def read(columns: Sequence[str]) -> pa.Table:
        try:
            return pq.read_table(pa.BufferReader(content), columns=list(columns))
        # a damaged file can raise any of the errors of Arrow, and is never used
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            reason = " ".join(str(error).split())[:80]
            raise InputError(f"{file}: not a Parquet file that can be read ({reason}); write it again") from None

    try:
        metadata = pq.ParquetFile(pa.BufferReader(content))
        schema, num_rows = metadata.schema_arrow, metadata.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{file}: not a Parquet file that can be read ({reason}); write it again") from None
    plain = [field.name if _is_plain(field.type) else "" for field in schema]  # others, such as images, have no name

    def column(place: int) -> list[Any]:
        values = read([schema.names[place]]).column(0)
        try:
            return plain_values(values)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:80]
            raise InputError(f"{file}: column {schema.names[place]!r}: {reason}; write the file again") from None

    return Table(file, plain, True, num_rows, column, lambda row: f"{file}: row {row}")


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column can hold paths or labels: text, numbers or Booleans, also as categories of pandas."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )


def plain_values(values: pa.ChunkedArray) -> list[Any]:
    """Texts and whole numbers as text, other values as Python has them; None where a value is missing."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        texts: list[Any] = values.cast(pa.large_string()).to_numpy().tolist()
        return texts
    plain: list[Any] = values.to_pylist()
    return plain
