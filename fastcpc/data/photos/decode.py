"""Decodes images once, to see that they can be: in this process or in many."""

import multiprocessing
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from fastcpc.errors import RunError

CHUNK = 32
SMALL = 32  # pixels; a shorter side below this is worth a remark
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
class Check:
    """What decoding an image showed.

    fault: why it cannot be used, empty where it can. note: what is unusual though it decodes. width, height: pixels
    as stored, 0 where unknown.
    """

    fault: str = ""
    note: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    num_bytes: int = 0


def check_image(path: str) -> Check:
    """Decode a file to its last pixel with Pillow, as RGB."""
    try:
        num_bytes = os.stat(path).st_size
    except FileNotFoundError:
        return Check("no such file")
    except OSError as error:
        return Check(f"cannot be read ({error.strerror})")
    if not num_bytes:
        return Check("is empty (zero bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF blocks; what matters is whether the pixels come
        try:
            with Image.open(path) as image:
                kind, mode, (width, height) = image.format or "", image.mode, image.size
                image.load()
                turn = image.getexif().get(EXIF_TURN, 1)
                image.convert("RGB")
        except UnidentifiedImageError:
            return Check("is no image that can be identified", num_bytes=num_bytes)
        except Exception as error:  # whatever a decoder throws at a damaged file: SyntaxError, struct.error, ...
            reason = " ".join(str(error).split()) or type(error).__name__
            return Check(f"cannot be decoded ({reason[:120]})", num_bytes=num_bytes)
    return Check("", _note(path, kind, mode, min(width, height), turn), kind, width, height, num_bytes)


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


def check_images(paths: Sequence[str], jobs: int) -> Iterator[Check]:
    """Check many files, in their order. jobs: processes; 1 uses this one. RunError when a process dies."""
    if jobs == 1 or len(paths) <= CHUNK:
        yield from map(check_image, paths)
        return
    # not forked: the parent has threads of other libraries, whose locks a copy could never take
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(jobs, context) as pool:
            yield from pool.map(check_image, paths, chunksize=CHUNK)
    except BrokenProcessPool:
        raise RunError("a decoding process died, out of memory perhaps: try fewer --jobs") from None
