"""Reads single cells of a column of bytes in a Parquet file, without reading whole row groups.

Where pages are not compressed, as the ``datasets`` library writes images, a cell is read by its offset in the file.
Else its page is decompressed. CACHE_BYTES of recently used pages stay in memory, per process. Encodings that are rare
for images are read by pyarrow, a row group at a time.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastcpc.data.containers.handles import ContainerFile, read_range
from fastcpc.data.containers.parquet_pages import DICTIONARY, Chunk, Page, read_pages
from fastcpc.data.image_files import MAX_BYTES

CACHE_BYTES = 1 << 28
SMALL_CELL = 1 << 14  # mean bytes: a page of smaller cells is read whole, to find where they begin
PLAIN, OLD_DICTIONARY, RLE, BY_DICTIONARY = 0, 2, 3, 8  # encodings
CODECS = ("", "snappy", "gzip", "zstd", "brotli", "lz4_raw")
NULL = -1  # length of a cell without a value


@dataclass(frozen=True)
class Cells:
    """Where the cells of a page are. starts: int64 (N,); lengths: int64 (N,), NULL where there is no value.

    content: the bytes that starts count in; None: the file.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    content: memoryview | None

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return self.starts.nbytes + self.lengths.nbytes + (0 if self.content is None else self.content.nbytes)


@dataclass(frozen=True)
class CellColumn:
    """A column of bytes. name: its path in the schema. max_level: nesting of optional values. chunks: per row group."""

    file: ContainerFile
    name: str
    max_level: int
    chunks: tuple[Chunk, ...]

    def cell(self, row: int) -> bytes | None:
        """The value of a row; None where it has none. Threads may call it at the same time.

        OSError where the file cannot be read; other errors where it is damaged.
        """
        chunk = self.chunks[bisect_right(self.chunks, row, key=lambda chunk: chunk.first_row) - 1]
        place = row - chunk.first_row
        pages = _cached((self.file, chunk.start), lambda: _Pages(self, chunk))
        assert isinstance(pages, _Pages)
        page, first = pages.holding(place)
        cells = _cached((self.file, chunk.start, first), lambda: pages.cells(page))
        assert isinstance(cells, Cells)
        start, length = int(cells.starts[place - first]), int(cells.lengths[place - first])
        if length == NULL:
            return None
        if length > MAX_BYTES:
            raise ValueError(f"{length:,} bytes, more than {MAX_BYTES:,}")
        found = read_range(self.file, start, length) if cells.content is None else cells.content[start : start + length]
        if len(found) < length:
            raise ValueError("a cell ends behind its page")
        return bytes(found)


class _Pages:
    """The pages of a chunk, and how their cells are read."""

    def __init__(self, column: CellColumn, chunk: Chunk) -> None:
        self._column, self._chunk = column, chunk
        pages = read_pages(column.file, chunk)
        self._dictionary = next((page for page in pages if page.kind == DICTIONARY), None)
        self._data = [page for page in pages if page.kind != DICTIONARY]
        self._ends = list(accumulate(page.num_values for page in self._data))
        self.num_bytes = 200 * len(pages)
        self.by_arrow = chunk.codec not in CODECS or not all(map(self._is_known, pages))
        if not self.by_arrow and (not self._ends or self._ends[-1] != chunk.num_rows):
            raise ValueError("the pages have another number of rows than the row group")

    def _is_known(self, page: Page) -> bool:
        if page.kind == DICTIONARY:
            return page.encoding in (PLAIN, OLD_DICTIONARY)
        by_number = page.encoding in (OLD_DICTIONARY, BY_DICTIONARY) and self._dictionary is not None
        return (page.encoding == PLAIN or by_number) and page.levels_encoding == RLE

    def holding(self, place: int) -> tuple[Page | None, int]:
        """The page with a row of the chunk, and its first row; None where pyarrow reads the whole chunk."""
        if self.by_arrow:
            return None, 0
        number = bisect_right(self._ends, place)
        page = self._data[number]
        return page, self._ends[number] - page.num_values

    def cells(self, page: Page | None) -> Cells:
        """The cells of a page of ``holding``."""
        if page is None:
            return _by_arrow(self._column, self._chunk)
        levels_size = 0 if page.levels_size < 0 else page.levels_size
        levels = read_range(self._column.file, page.offset, levels_size)
        content = self._content(page, levels_size)
        start = 0
        if self._column.max_level and page.levels_size < 0:  # version 1: the levels begin the content
            size = int.from_bytes(self._bytes(page, content, 0, 4), "little")
            levels, start = self._bytes(page, content, 4, size), 4 + size
        present = np.ones(page.num_values, bool)
        if self._column.max_level:
            width = self._column.max_level.bit_length()
            present = _runs(levels, width, page.num_values) == self._column.max_level
        num_present = int(present.sum())
        if page.encoding == PLAIN:
            starts, lengths = self._plain(page, content, levels_size, start, num_present)
        else:
            end = (len(content) if content is not None else page.size - levels_size) - start
            numbers = self._bytes(page, content, start, end, levels_size)
            known = _cached(
                (self._column.file, self._chunk.start, "dictionary"), self._read_dictionary, _making_dictionary
            )
            assert isinstance(known, Cells)
            chosen = _runs(numbers[1:], numbers[0], num_present) if num_present else np.zeros(0, np.int64)
            starts, lengths, content = known.starts[chosen], known.lengths[chosen], known.content
        all_starts, all_lengths = np.zeros(page.num_values, np.int64), np.full(page.num_values, NULL, np.int64)
        all_starts[present], all_lengths[present] = starts, lengths
        return Cells(all_starts, all_lengths, content)

    def _read_dictionary(self) -> Cells:
        page = self._dictionary
        assert page is not None
        content = self._content(page, 0)
        return Cells(*self._plain(page, content, 0, 0, page.num_values), content)

    def _content(self, page: Page, levels_size: int) -> memoryview | None:
        """The values of a page without compression; None where the file has them so."""
        if not page.packed:
            return None
        packed = read_range(self._column.file, page.offset + levels_size, page.size - levels_size)
        plain_size = page.plain_size - levels_size
        return memoryview(pa.Codec(self._chunk.codec).decompress(packed, decompressed_size=plain_size))

    def _bytes(self, page: Page, content: memoryview | None, start: int, size: int, levels_size: int = 0) -> bytes:
        if content is not None:
            return bytes(content[start : start + size])
        return read_range(self._column.file, page.offset + levels_size + start, size)

    def _plain(
        self, page: Page, content: memoryview | None, levels_size: int, start: int, num: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and length of each value, which follows its length in four bytes."""
        starts, lengths = np.zeros(num, np.int64), np.zeros(num, np.int64)
        base, whole = 0, content
        if content is None:
            base = page.offset + levels_size
            if page.size < SMALL_CELL * max(num, 1):
                whole = memoryview(read_range(self._column.file, base, page.size - levels_size))
        end, place = page.plain_size - levels_size, start
        for k in range(num):
            head = read_range(self._column.file, base + place, 4) if whole is None else whole[place : place + 4]
            length = int.from_bytes(head, "little")
            starts[k], lengths[k] = base + place + 4, length
            place += 4 + length
            if place > end:
                raise ValueError("a cell ends behind its page")
        return starts, lengths


def _runs(content: bytes, width: int, num: int) -> NDArray[np.int64]:
    """Numbers in Parquet's hybrid of runs and bit-packed groups: int64 (num,). width: binary digits per number."""
    found, have, place = [np.zeros(0, np.int64)], 0, 0
    while have < num and width:
        head = shift = 0
        while True:
            byte = content[place]
            place += 1
            head |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if head & 1:
            size = (head >> 1) * width
            digits = np.unpackbits(np.frombuffer(content[place : place + size], np.uint8), bitorder="little")
            groups = digits[: len(digits) // width * width].reshape(-1, width).astype(np.int64)
            values = groups @ (1 << np.arange(width, dtype=np.int64))
        else:
            size = -(-width // 8)
            values = np.full(min(head >> 1, num - have), int.from_bytes(content[place : place + size], "little"))
        if not len(values):
            raise ValueError("a run without values")
        place += size
        have += len(values)
        found.append(values)
    return np.concatenate(found)[:num] if width else np.zeros(num, np.int64)


def _by_arrow(column: CellColumn, chunk: Chunk) -> Cells:
    """The cells of a whole chunk, read by pyarrow."""
    groups = [one.start for one in column.chunks]
    with pq.ParquetFile(column.file.path) as file:
        values = file.read_row_group(groups.index(chunk.start), columns=[column.name]).column(0).combine_chunks()
    while pa.types.is_struct(values.type):
        values = values.flatten()[0]
    values = values.cast(pa.large_binary())
    _, offsets, content = values.buffers()
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    lengths = np.where(values.is_null().to_numpy(zero_copy_only=False), NULL, np.diff(ends))
    return Cells(ends[:-1].copy(), lengths, memoryview(content or b""))


_entries: "OrderedDict[object, Cells | _Pages]" = OrderedDict()
_entries_lock = threading.Lock()
_making = [threading.Lock() for _ in range(64)]
_making_dictionary = [threading.Lock() for _ in range(64)]  # taken while one of the others is held
_total = 0


def _cached(
    key: object, make: Callable[[], "Cells | _Pages"], locks: Sequence[threading.Lock] = _making
) -> "Cells | _Pages":
    """The entry of a key, made once and kept while it is among the last used CACHE_BYTES."""
    global _total
    with _entries_lock:
        if key in _entries:
            _entries.move_to_end(key)
            return _entries[key]
    with locks[hash(key) % len(locks)]:
        with _entries_lock:
            if key in _entries:
                return _entries[key]
        made = make()
        with _entries_lock:
            _entries[key] = made
            _total += made.num_bytes
            while _total > CACHE_BYTES and len(_entries) > 1:
                _total -= _entries.popitem(last=False)[1].num_bytes
    return made


def clear() -> None:
    """Forget all entries, so that a measurement begins without them."""
    global _total
    with _entries_lock:
        _entries.clear()
        _total = 0
