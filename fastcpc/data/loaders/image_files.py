"""The image files of a split: contents, sizes, pixels by Pillow, and the list of bad images.

The decoders, ``fastcpc-prepare`` and the report call it. It decodes only the formats in ``FORMATS``.
"""

import contextlib
import io
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastcpc.data.dataset import ImageSplit
from fastcpc.errors import RunError

logger = logging.getLogger("fastcpc")
TURNED = (5, 6, 7, 8)  # values of the EXIF orientation that swap width and height
ORIENTATION = 0x0112
# Formats that Pillow decodes itself. Without this list, Pillow runs Ghostscript on PostScript, whatever the file name.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "JPEG2000", "PPM")


class BadImage(Exception):  # noqa: N818 (always caught: counted and replaced)
    """A file without a decodable image. The message gives the reason on one line."""


def read_bytes(path: str) -> bytes:
    """Read a whole file. Raises BadImage if it does not exist, cannot be read or is empty."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise BadImage("there is no such file") from error
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror})") from error
    if not content:
        raise BadImage("the file is empty")
    return content


def decode_image(content: bytes) -> Image.Image:
    """Decode a whole image to upright RGB: drop alpha, convert grey and CMYK, reduce 16 bits per channel to 8.

    content: of the file. Raises BadImage, also if only the end of the file is missing.
    """
    with _bad_where_it_fails(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.load()
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to the form that ``decode_image`` returns. May change the image in place."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "RGB":
        return image.copy() if image.readonly else image
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        return Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # else Pillow warns about palettes
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class ImageHeader:
    """The header of a file: Pillow's name of its format, and the size of the upright image."""

    format: str
    height: int
    width: int


def read_image_header(content: bytes) -> ImageHeader:
    """Read the header of a file. Raises BadImage."""
    with _bad_where_it_fails(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if image.getexif().get(ORIENTATION) in TURNED:
            width, height = height, width
        return ImageHeader(image.format or "", height, width)


@contextlib.contextmanager
def _bad_where_it_fails() -> Iterator[None]:
    """Raise BadImage for all errors but MemoryError, because Pillow's readers raise exceptions of any type."""
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("not an image of a known format") from error
    except Exception as error:
        raise BadImage(" ".join(f"{error or type(error).__name__}".split())) from error


class FileBytes:
    """The files of a split as bytes. Files that were read stay in memory, up to a budget.

    num_read: number of files read from disk. num_kept, kept_bytes: number and size of the files in memory.
    """

    def __init__(self, paths: tuple[str, ...], budget: int) -> None:
        """budget: maximum bytes to keep in memory, 0 or more."""
        self.num_read = self.kept_bytes = 0
        self._paths, self._budget = paths, budget
        self._kept: dict[int, bytes] = {}
        self._lock = threading.Lock()

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    def read(self, row: int) -> bytes:
        """The file of a row. Raises BadImage as ``read_bytes``. Threads may call it at the same time."""
        content = self._kept.get(row)
        if content is not None:
            return content
        content = read_bytes(self._paths[row])
        with self._lock:
            self.num_read += 1
            if row not in self._kept and self.kept_bytes + len(content) <= self._budget:
                self._kept[row] = content
                self.kept_bytes += len(content)
        return content


class BadImages:
    """Counts the files of a split that cannot be read, and names them in a file.

    rows: their positions in the split.
    """

    def __init__(self, split: ImageSplit, max_bad: float | None, listed_in: Path | None) -> None:
        """max_bad: the maximum share of bad files; None for a test set, which must be complete.

        listed_in: file that gets a line per bad file; None: no list.
        """
        self.rows: set[int] = set()
        self.num_samples = len(split)
        self._split, self._max_bad, self._listed_in = split, max_bad, listed_in

    def add(self, row: int, reason: str) -> None:
        """Count a bad file. Raises RunError if there are too many."""
        if row in self.rows:
            return
        self.rows.add(row)
        name, num_samples = self._split.names[row], len(self._split)
        self._write(f"{self._split.paths[row]}\t{reason}\n")
        if len(self.rows) > (self._max_bad or 0.0) * num_samples:
            limit = "test images cannot be read, and a test set must be whole"
            if self._max_bad is not None:
                limit = f"images cannot be read, more than data.max_bad={self._max_bad:g} allows"
            listed = "" if self._listed_in is None else f"; all that were met are listed in {self._listed_in}"
            raise RunError(f"{len(self.rows)} of {num_samples} {limit}; the last: {name}: {reason}{listed}")
        logger.warning("%s cannot be read (%s); another image is taken for it", name, reason)

    def _write(self, line: str) -> None:
        if self._listed_in is None:
            return
        known = self._listed_in.read_text(encoding="utf-8") if self._listed_in.exists() else ""
        if line not in known.splitlines(keepends=True):  # a resumed run finds the same files again
            with self._listed_in.open("a", encoding="utf-8") as file:
                file.write(line)
