"""Finds the pages of a column of a Parquet file: their headers, in Thrift's compact form.

pyarrow reads row groups only. A row group of images has 10 to 100 MB, a page mostly 1 MB. ``parquet_cells`` calls it.
"""

from dataclasses import dataclass
from typing import Any

from fastcpc.data.containers.handles import ContainerFile, read_range

HEADER = 256  # bytes of a header that are read at once; statistics can make it longer
LONGEST_HEADER = 1 << 20
DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # kinds of pages


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of a column in one row group. start, size: of its pages in the file, bytes. num_rows: of the group.

    first_row: in the file. codec: Arrow's name in lower case, "" for none.
    """

    first_row: int
    num_rows: int
    start: int
    size: int
    codec: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page. offset, size: of its content in the file; plain_size: of the content without compression.

    encoding: of its values, as Parquet numbers them. levels_size: bytes of the levels before the values where the
    header says it (version 2), else -1. packed: whether the values are compressed. levels_encoding: version 1.
    """

    kind: int
    num_values: int
    offset: int
    size: int
    plain_size: int
    encoding: int
    levels_size: int
    levels_encoding: int
    packed: bool


def read_pages(file: ContainerFile, chunk: Chunk) -> list[Page]:
    """The pages of a chunk in order. ValueError where a header is damaged."""
    pages, place, end = [], chunk.start, chunk.start + chunk.size
    while place < end:
        header, length = _header_at(file, place, end - place)
        page = _page(header, place + length, bool(chunk.codec))
        place = page.offset + page.size
        if page.size < 0 or place > end:
            raise ValueError("a page ends behind its column")
        if page.kind in (DATA, DICTIONARY, DATA_V2):
            pages.append(page)
    return pages


def _header_at(file: ContainerFile, place: int, room: int) -> tuple[dict[int, Any], int]:
    """The header of the page at a place, and its length."""
    size = HEADER
    while True:
        content = read_range(file, place, min(size, room))
        try:
            return _struct(content, 0)
        except IndexError:
            size *= 8
            if size > LONGEST_HEADER or len(content) >= room:
                raise ValueError("a page without a header") from None


def _page(header: dict[int, Any], offset: int, packed: bool) -> Page:
    """A page by the fields of its header, which Parquet numbers."""
    kind = header[1]
    about: dict[int, Any] = header.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, 0), {})
    levels_size, levels_encoding = -1, 3
    if kind == DATA_V2:
        levels_size, packed = about[5] + about[6], packed and about.get(7, True)
    elif kind == DATA:
        levels_encoding = about[3]
    encoding = about.get(4 if kind == DATA_V2 else 2, -1)
    return Page(
        kind, about.get(1, 0), offset, header[3], header[2], encoding, levels_size, levels_encoding, packed
    )  # fmt: skip


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7


def _signed(content: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(content, place)
    return (value >> 1) ^ -(value & 1), place


def _struct(content: bytes, place: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol: value by number of its field, and the place behind it.

    IndexError where the content ends too early; ValueError for types that page headers do not have.
    """
    fields: dict[int, Any] = {}
    number = 0
    while True:
        first = content[place]
        place += 1
        if not first:
            return fields, place
        step, kind = first >> 4, first & 15
        if step:
            number += step
        else:
            number, place = _signed(content, place)
        if kind in (1, 2):  # true, false
            fields[number] = kind == 1
        elif kind in (4, 5, 6):  # integers
            fields[number], place = _signed(content, place)
        elif kind == 8:  # bytes
            size, place = _varint(content, place)
            if place + size > len(content):
                raise IndexError
            place += size
        elif kind == 12:
            fields[number], place = _struct(content, place)
        else:
            raise ValueError("a page without a header")
