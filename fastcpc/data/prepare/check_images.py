"""Checks that images can be decoded, in one process or in several."""

import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fastcpc.data.loaders.image_files import FORMATS, upright_rgb
from fastcpc.data.prepare.cache import shrink
from fastcpc.errors import RunError

CHUNK = 32
SMALL = 32  # pixels; a shorter side below this gets a note
EXIF_TURN = 0x0112
FORMAT_OF_ENDING = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """The result of decoding an image.

    problem: why the image cannot be used; empty where it can. note: what is unusual about an image that decodes.
    width, height: pixels as stored; 0 where unknown.
    """

    problem: str = ""
    note: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ResizedImage:
    """An image for the cache. pixels: uint8 (H, W, 3). mtime_ns: modification time of its file, in ns."""

    pixels: NDArray[np.uint8]
    mtime_ns: int


def check_image(path: str) -> ImageCheck:
    """Decode a file to its last pixel with Pillow, as RGB."""
    return check_and_shrink(path, 0)[0]


def check_and_shrink(path: str, side: int) -> tuple[ImageCheck, ResizedImage | None]:
    """As ``check_image``; also returns the decoded image for the cache. side: 0 returns no image."""
    small: ResizedImage | None = None
    try:
        status = os.stat(path)
        num_bytes = status.st_size
    except FileNotFoundError:
        return ImageCheck("no such file"), None
    except OSError as error:
        return ImageCheck(f"cannot be read ({error.strerror})"), None
    if not num_bytes:
        return ImageCheck("is empty (zero bytes)"), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ignore unusual EXIF blocks; only the pixels matter
        try:
            with Image.open(path, formats=FORMATS) as image:
                kind, mode, (width, height) = image.format or "", image.mode, image.size
                image.load()
                turn = image.getexif().get(EXIF_TURN, 1)
                photo = upright_rgb(image)
                if side:
                    small = ResizedImage(shrink(photo, side), status.st_mtime_ns)
        except UnidentifiedImageError:
            return ImageCheck("is no image that can be identified", num_bytes=num_bytes), None
        except Exception as error:  # decoders raise many types on a damaged file: SyntaxError, struct.error, ...
            reason = " ".join(str(error).split()) or type(error).__name__
            return ImageCheck(f"cannot be decoded ({reason[:120]})", num_bytes=num_bytes), None
    note = _note(path, kind, mode, min(width, height), turn)
    return ImageCheck("", note, kind, width, height, num_bytes), small


def _note(path: str, kind: str, mode: str, shorter: int, turn: object) -> str:
    ending = os.path.splitext(path)[1].lower()
    notes = []
    if FORMAT_OF_ENDING.get(ending, kind) != kind:
        notes.append(f"{kind} named {ending}")
    if mode not in ("RGB", "L"):
        notes.append(f"{mode} instead of RGB")
    if turn not in (0, 1):
        notes.append("turned by EXIF")
    if shorter < SMALL:
        notes.append(f"shorter side of {shorter} px")
    return ", ".join(notes)


def check_images(paths: Sequence[str], jobs: int, side: int = 0) -> Iterator[tuple[ImageCheck, ResizedImage | None]]:
    """Check many files in their order, and resize them for the cache where side is not 0.

    jobs: number of processes; 1 uses this process. The processes work only a few chunks ahead of the caller. Raises
    RunError when a process dies.
    """
    if jobs == 1 or len(paths) <= CHUNK:
        yield from (check_and_shrink(path, side) for path in paths)
        return
    # spawn, not fork: threads of other libraries in the parent hold locks that a fork would never release
    context = multiprocessing.get_context("spawn")
    parts = iter([paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)])
    try:
        with ProcessPoolExecutor(jobs, context) as pool:
            ahead = deque(pool.submit(_check_part, part, side) for part in islice(parts, 2 * jobs))
            while ahead:
                done = ahead.popleft().result()
                ahead.extend(pool.submit(_check_part, part, side) for part in islice(parts, 1))
                yield from done
    except BrokenProcessPool:
        raise RunError("a decoding process died, out of memory perhaps: try fewer --jobs") from None


def _check_part(paths: Sequence[str], side: int) -> list[tuple[ImageCheck, ResizedImage | None]]:
    return [check_and_shrink(path, side) for path in paths]
