"""Write tables of suspects as Parquet, or as CSV that is safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.data.corrections.spreadsheet import safe_text
from fastcpc.errors import InputError


def table_writer(path: Path) -> Callable[[pa.Table], bytes]:
    """The function from table to file content for this ending; InputError for another ending."""
    writers = {".csv": csv_bytes, ".parquet": parquet_bytes}
    if path.suffix.lower() not in writers:
        raise InputError(f"{path}: unknown kind of file; use .csv or .parquet")
    return writers[path.suffix.lower()]


def csv_bytes(table: pa.Table) -> bytes:
    """RFC 4180 in UTF-8 with a header.

    Text that a spreadsheet would evaluate gets an apostrophe in front, because names of files and classes are
    untrusted. Column ``index`` identifies a sample without its name; Parquet keeps names unchanged.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(table.column_names)
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        writer.writerow([_cell(value) for value in row])
    return buffer.getvalue().encode("utf-8")


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def _cell(value: object) -> str:
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else f"{value}"
