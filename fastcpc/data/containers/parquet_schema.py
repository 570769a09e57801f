"""Finds the columns of images and labels in a Parquet file, and the class names that Hugging Face stores with it.

A column of images is a struct with the child ``bytes`` (Hugging Face's Image), or a column of bytes. fastcpc-embed asks
``has_images`` whether a Parquet file is a list of paths or holds images.
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.data.containers.handles import ContainerFile
from fastcpc.data.containers.parquet_cells import CellColumn
from fastcpc.data.containers.parquet_pages import Chunk
from fastcpc.data.datasets.listing import shorten
from fastcpc.data.labels.columns import LABEL, TRUSTED, find_column
from fastcpc.errors import InputError

METADATA = b"huggingface"


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a file and read its metadata. InputError where it is no Parquet file."""
    try:
        return pq.ParquetFile(path)
    # a damaged file can raise any of the errors of Arrow
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(
            f"{path}: not a Parquet file that can be read ({reason}); download or write it again"
        ) from None


def hf_features(schema: pa.Schema) -> Mapping[str, Any]:
    """The features of each column by Hugging Face's metadata; empty without it."""
    try:
        features = json.loads((schema.metadata or {})[METADATA])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def image_columns(schema: pa.Schema) -> dict[str, str]:
    """The columns that probably hold images, and the path of the bytes in each.

    Those that Hugging Face marks as images come first, then structs with bytes, then plain bytes.
    """
    every, features = _bytes_columns(schema), hf_features(schema)
    marked = {name: path for name, path in every.items() if _type(features.get(name)) == "Image"}
    structs = {name: path for name, path in every.items() if path != name}
    return marked or structs or every


def _bytes_columns(schema: pa.Schema) -> dict[str, str]:
    """The columns of bytes, and the structs with bytes, with the path of the bytes in each."""
    found = {}
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type):
            found[field.name] = f"{field.name}.bytes"
        elif _is_bytes(kind):
            found[field.name] = field.name
    return found


def _type(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def has_images(path: str) -> bool:
    """Whether a Parquet file has a column of images. InputError where it is no Parquet file."""
    with open_parquet(path) as file:
        return bool(image_columns(file.schema_arrow))


def find_cells(path: str, file: pq.ParquetFile, container: ContainerFile, image_key: str) -> CellColumn:
    """The column of images of a file. image_key: data.image_key, or "". InputError where there is not one."""
    schema = file.schema_arrow
    found = image_columns(schema)
    if image_key:
        found = {name: inner for name, inner in _bytes_columns(schema).items() if name == image_key}
    if not found:
        known = ", ".join(
            f"{field.name} {'struct' if pa.types.is_struct(field.type) else field.type}" for field in schema
        )
        asked = f"no column {image_key!r} of images" if image_key else "no column of images"
        raise InputError(
            f"{path}: {asked} ({shorten(known)}); a column of bytes, or a struct with bytes, is expected; a list of "
            "paths is read with data.name=imagefolder data.list"
        )
    if len(found) > 1:
        raise InputError(
            f"{path}: {' and '.join(map(repr, found))} are both columns of images; name one in data.image_key"
        )
    (inner,) = found.values()
    leaves = file.metadata.schema
    place = next(k for k in range(file.metadata.num_columns) if leaves.column(k).path == inner)
    return CellColumn(container, inner, leaves.column(place).max_definition_level, _chunks(file, place))


def _chunks(file: pq.ParquetFile, place: int) -> tuple[Chunk, ...]:
    chunks, first_row = [], 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        column = group.column(place)
        start = column.data_page_offset
        if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
            start = column.dictionary_page_offset
        codec = column.compression.lower()
        chunk = Chunk(
            first_row, group.num_rows, start, column.total_compressed_size, "" if codec == "uncompressed" else codec
        )
        if group.num_rows:
            chunks.append(chunk)
        first_row += group.num_rows
    return tuple(chunks)


def label_column(path: str, schema: pa.Schema, label_key: str) -> str:
    """The column of labels: data.label_key, else label or another usual name, else the only ClassLabel.

    InputError where there is none, or two.
    """
    names = [name for name in schema.names if not _is_nested(schema.field(name).type)]
    if label_key:
        if label_key not in names:
            raise InputError(
                f"{path}: data.label_key={label_key}: no such column of labels; it has {shorten(', '.join(names))}"
            )
        return label_key
    classes = [name for name in names if class_names(schema, name)]
    if "label" not in names and len(classes) > 1:
        raise InputError(
            f"{path}: {' and '.join(map(repr, classes))} are both columns of labels; name one in data.label_key"
        )
    try:
        place = find_column(names, LABEL, path)
    except InputError as error:
        raise InputError(f"{str(error).partition(';')[0]}; name one in data.label_key") from None
    if place is None and not classes:
        raise InputError(
            f"{path}: no column of labels ({shorten(', '.join(names) or 'no other column')}); name it label, or in "
            "data.label_key"
        )
    return str(names[place]) if place is not None else str(classes[0])


def trusted_column(path: str, schema: pa.Schema) -> str:
    """The column of true labels; "" where there is none."""
    place = find_column(schema.names, TRUSTED, path)
    return "" if place is None else str(schema.names[place])


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of Hugging Face's ClassLabel of a column, in order; empty for other columns."""
    feature = hf_features(schema).get(column)
    names = feature.get("names") if isinstance(feature, dict) and _type(feature) == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or _is_bytes(kind))
