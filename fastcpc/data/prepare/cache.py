"""Writes and reads the cache: all images resized, as raw pixels in one memory-mapped file.

With a cache, no epoch decodes images. A cached image is the upright RGB image with its shorter side at ``side`` pixels.
Pillow resizes it (``data.interpolation``, with antialiasing), as torchvision's Resize does. A smaller image keeps its
size. Test views and crops with ``data.resize=side`` equal those of Resize and a crop. Random resized crops come from
the resized image.
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastcpc.atomic_io import staged_file
from fastcpc.config.sizes import BILINEAR
from fastcpc.data.dataset import RGB, ImageSplit
from fastcpc.data.image_files import MAX_ASPECT
from fastcpc.data.image_store import UNKNOWN_SIZE
from fastcpc.errors import InputError, RunError

META = b"fastcpc"
INTERPOLATION = "interpolation"  # key of the description in META
VERSION = 1
TOKEN = 32  # bytes before the pixels; they identify the table of the pixels
ABSENT = -1
STAT_AT_MOST = 20_000  # number of images whose files are compared with the cache on opening, evenly spread
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
    ]
)


def cache_path(index: Path, side: int) -> Path:
    """Path of the table of an index's cache. The pixels are in the same folder, with the ending .bin."""
    return index.with_name(f"{index.stem}.cache-{side}.parquet")


@dataclass(frozen=True)
class ImageCache:
    """The cached images of a split.

    path: path of the table. pixels: uint8, all images concatenated. offset_N: int64, first position of each image, -1
    where it is not cached. size_N2: int64, height and width.
    """

    path: Path
    pixels: NDArray[np.uint8]
    offset_N: NDArray[np.int64]
    size_N2: NDArray[np.int64]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which images are cached, bool (N,)."""
        present: NDArray[np.bool_] = self.offset_N != ABSENT
        return present

    def has(self, row: int) -> bool:
        """Whether an image is cached."""
        return bool(self.offset_N[row] != ABSENT)

    def image(self, row: int) -> NDArray[np.uint8]:
        """Pixels of an image in the mapped file, uint8 (H, W, 3)."""
        height, width = self.size_N2[row].tolist()
        first = int(self.offset_N[row])
        return self.pixels[first : first + height * width * RGB].reshape(height, width, RGB)


class CacheWriter:
    """Writes a cache image by image. The cache appears only when it is complete."""

    def __init__(
        self, path: Path, name: str, side: int, num_images: int, mean_bytes: float, interpolation: str = BILINEAR
    ) -> None:
        """path: path of the table. mean_bytes: estimated bytes per image. interpolation: of the resized images.

        RunError if the disk has too little space.
        """
        self.path, self._about = path, {"version": VERSION, "data": name, "side": side, "token": secrets.token_hex(16)}
        self._about |= {INTERPOLATION: interpolation}
        self._part = _pixels(path).with_name(f"{_pixels(path).name}.part")  # one name: kills leave one such file
        self._columns: dict[str, list[Any]] = {field: [] for field in SCHEMA.names}
        self._size = TOKEN
        needed, free = num_images * mean_bytes, shutil.disk_usage(path.parent).free
        if needed > free:
            raise RunError(
                f"{path.parent}: the cache of {num_images:,} images needs about {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB are free; a smaller --cache SIDE, or --out on another disk"
            )
        self._files = ExitStack()
        self._table = self._files.enter_context(staged_file(path, path.with_name(f"{path.name}.part")))
        self._file = self._files.enter_context(staged_file(_pixels(path), self._part))
        self._file.write(str(self._about["token"]).encode())

    def add(self, name: str, pixels: NDArray[np.uint8], num_bytes: int, mtime_ns: int) -> None:
        """Append an image. RunError where the disk is full."""
        try:
            self._file.write(pixels.tobytes())
        except OSError as error:
            raise RunError(f"{self._part}: cannot be written ({error.strerror}); no cache is left") from None
        height, width = pixels.shape[:2]
        for column, value in zip(
            SCHEMA.names, (name, self._size, height, width, num_bytes, mtime_ns), strict=True
        ):  # fmt: skip
            self._columns[column].append(value)
        self._size += pixels.size

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Move the cache to its path: first the pixels, then the table. After an error, delete what was written.

        Between the two moves, the token shows that the files do not match.
        """
        if error is not None:
            self._files.__exit__(kind, error, trace)
            return
        try:
            with self._files:
                schema = SCHEMA.with_metadata({META: json.dumps(self._about | {"size": self._size}).encode()})
                pq.write_table(pa.Table.from_pydict(self._columns, schema=schema), self._table)
        except OSError as failure:
            raise RunError(f"{self._part}: cannot be written ({failure.strerror}); no cache is left") from None


def open_cache(
    path: Path, name: str, side: int, split: ImageSplit, again: str, interpolation: str = BILINEAR
) -> ImageCache:
    """Open the cached images of a split.

    side, interpolation: those of the run. again: the command that makes the cache. Raises InputError if the cache is
    damaged, belongs to another data set, size or interpolation, or was made from files that have changed since.
    """
    hint = f"run {again}, or set data.cache=off"
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {}).get(META, b"{}"))
        pixels = np.asarray(np.memmap(_pixels(path), np.uint8, mode="c"))  # never written; torch needs it writable
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a cache that can be read ({str(error).splitlines()[0][:80]}); {hint}") from None
    if about.get("version") != VERSION or about.get("data") != name:
        raise InputError(f"{path}: not a cache of {name} that this version reads; {hint}")
    if about.get("side") != side:
        raise InputError(f"{path}: made for data.resize={about.get('side')}, which is {side}; {hint}")
    made_by = about.get(INTERPOLATION, BILINEAR)  # caches of earlier versions do not name it
    if made_by != interpolation:
        raise InputError(f"{path}: made with data.interpolation={made_by}, which is {interpolation}; {hint}")
    if len(pixels) != about.get("size") or bytes(pixels[:TOKEN]) != about["token"].encode():
        raise InputError(
            f"{_pixels(path)}: does not belong to {path.name}: one of the two was cut off or replaced; {hint}"
        )
    place = {image: i for i, image in enumerate(table["path"].to_pylist())}
    rows = np.array([place.get(image, ABSENT) for image in split.names], np.int64)
    columns = {field: table[field].to_numpy() for field in SCHEMA.names[1:]}
    there = rows != ABSENT
    size_N2 = np.zeros((len(rows), 2), np.int64)
    size_N2[there] = np.stack((columns["height"], columns["width"]), axis=1)[rows[there]]
    # an older cache may hold images that are too long to be resized: let the decoder refuse them
    there &= size_N2.max(axis=1) <= MAX_ASPECT * size_N2.min(axis=1)
    offset_N = np.where(there, columns["offset"][rows] if len(table) else ABSENT, ABSENT)
    for row in _spread(np.flatnonzero(there)):
        if not _same_file(split.images.state(row), columns["bytes"][rows[row]], columns["mtime_ns"][rows[row]]):
            raise InputError(f"{path}: {split.names[row]} is not the file that was cached; {hint}")
    return ImageCache(path, pixels, offset_N, size_N2)


def _pixels(path: Path) -> Path:
    return path.with_suffix(".bin")


def _spread(rows: Sequence[int] | NDArray[np.int64]) -> Iterator[int]:
    """Yield at most STAT_AT_MOST of the rows, evenly spread."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), STAT_AT_MOST)).astype(np.int64)
    yield from (int(rows[place]) for place in places)


def _same_file(state: tuple[int, int] | None, num_bytes: int, mtime_ns: int) -> bool:
    return state is not None and state[0] in (UNKNOWN_SIZE, num_bytes) and state[1] == mtime_ns
