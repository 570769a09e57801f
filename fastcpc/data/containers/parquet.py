"""Lists Parquet files with images: Hugging Face's layout, or a column of bytes and a column of labels."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.config.schema import DataConfig
from fastcpc.data.containers.handles import container_file
from fastcpc.data.containers.parquet_cells import CellColumn
from fastcpc.data.containers.parquet_pages import read_pages
from fastcpc.data.containers.parquet_schema import class_names, find_cells, label_column, open_parquet, trusted_column
from fastcpc.data.containers.samples import Samples, Texts, find_parts, list_samples
from fastcpc.data.containers.stores import CellStore
from fastcpc.data.datasets.listing import Listing
from fastcpc.data.labels.label_values import texts_of
from fastcpc.data.labels.table_reader import plain_values
from fastcpc.errors import InputError

ENDING = ".parquet"
LARGE_PAGE = 1 << 25  # bytes of a compressed page from which reading single images is slow
NO_LABEL = "give each row a label, or list the labelled images in data.list"


def list_parquet(config: DataConfig) -> Listing:
    """The rows of Parquet files. Raises InputError, one line with file and row, for what cannot be read."""
    files = find_parts(config, (ENDING,), "Parquet files (.parquet)")
    columns: list[CellColumn] = []
    names: list[str] = []
    counts, parts = [], []
    labels, trusted, classes = Texts(), Texts(), dict[str, tuple[str, ...]]()
    for part, name, path in files.in_order():
        with open_parquet(path) as file:
            columns.append(find_cells(path, file, container_file(path), config.image_key))
            num_rows = file.metadata.num_rows
            if not config.list:
                classes[path] = _add_labels(file, path, config.label_key, labels, trusted)
        names += [f"{name}#{row}" for row in range(num_rows)]
        counts.append(num_rows)
        parts.append(part)
    if not names:
        raise InputError(f"{columns[0].file.path}: no rows; check data.root")
    all_names = tuple(names)
    samples = Samples(
        images=CellStore(
            os.path.join(files.base, ""),
            all_names,
            tuple(columns),
            np.repeat(np.arange(len(columns), dtype=np.int32), counts),
            np.concatenate([np.arange(count) for count in counts]),
        ),
        names=all_names,
        part_N=np.repeat(np.array(parts, np.int8), counts),
        labels=None if config.list else labels,
        trusted=trusted if any(trusted.distinct) else None,
        class_names=_one_order(classes),
        no_label=NO_LABEL,
        remarks=[*files.remarks, *_slow_pages(columns)],
    )
    return list_samples(samples, config, f"{len(columns):,} Parquet file{'s' * (len(columns) > 1)}")


def _add_labels(file: pq.ParquetFile, path: str, label_key: str, labels: Texts, trusted: Texts) -> tuple[str, ...]:
    """Append label and true label of each row; returns the class names of a ClassLabel."""
    schema = file.schema_arrow
    label, true = label_column(path, schema, label_key), trusted_column(path, schema)
    names = class_names(schema, label)
    for text in _texts(file, path, label, names):
        labels.add(text)
    for text in _texts(file, path, true, class_names(schema, true) or names) if true else [""] * file.metadata.num_rows:
        trusted.add(text)
    return names


def _texts(file: pq.ParquetFile, path: str, column: str, names: Sequence[str]) -> list[str]:
    """The labels of a column as texts; numbers of a ClassLabel as its names."""
    try:
        values = plain_values(file.read(columns=[column]).column(0))
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: column {column!r} cannot be read ({reason}); write the file again") from None
    texts = texts_of(values)
    if not names:
        return texts
    name_of: dict[str, Any] = {str(number): name for number, name in enumerate(names)} | {"": "", "-1": ""}
    wrong = next((row for row, text in enumerate(texts) if text not in name_of), None)
    if wrong is not None and texts[wrong] not in names:
        raise InputError(
            f"{path}#{wrong}: label {texts[wrong][:40]!r} is no class of ClassLabel {column!r} (0..{len(names) - 1}); "
            "correct it"
        )
    return texts if wrong is not None else [name_of[text] for text in texts]


def _one_order(classes: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The class names that all files have. InputError where two files have others."""
    first, *rest = classes.items() or [("", ())]
    other = next((path for path, names in rest if names != first[1]), None)
    if other is not None:
        raise InputError(f"{other}: its ClassLabel has other names than {first[0]}; write both with one feature")
    return first[1]


def _slow_pages(columns: Sequence[CellColumn]) -> list[str]:
    """A remark where single images are slow to read. The first row group of each file shows it."""
    for column in columns:
        chunk = column.chunks[0] if column.chunks else None
        if chunk is None or not chunk.codec or chunk.size < LARGE_PAGE:
            continue
        try:
            largest = max((page.plain_size for page in read_pages(column.file, chunk) if page.packed), default=0)
        except ValueError:
            continue
        if largest >= LARGE_PAGE:
            return [
                f"{column.file.path}: compressed in pages of {largest / 1e6:.0f} MB, so single images are slow to "
                "read; write it with row_group_size=100 or compression='none', or run fastcpc-prepare parquet --cache"
            ]
    return []
