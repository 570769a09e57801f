"""Checks that images can be decoded, in one process or in several.

A worker process imports this module. It does not import torch, so a worker needs some 60 MB instead of 700 MB.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fastcpc.config.sizes import BILINEAR
from fastcpc.data.image_files import BadImage, ImageHeader, decode_with_header, shrink
from fastcpc.data.image_store import ImageStore
from fastcpc.data.prepare.processes import in_processes

CHUNK = 32
SMALL = 32  # pixels; a shorter side below this gets a note
FORMAT_OF_ENDING = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jp2": "JPEG2000",
    ".avif": "AVIF",
}


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """The result of decoding an image.

    problem: why the image cannot be used; empty where it can. note: what is unusual about an image that decodes.
    width, height: pixels as stored; 0 where unknown. digest: of the bytes of the file; empty where it is not read.
    """

    problem: str = ""
    note: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    num_bytes: int = 0
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class ResizedImage:
    """An image for the cache. pixels: uint8 (H, W, 3). mtime_ns: modification time of its file, in ns."""

    pixels: NDArray[np.uint8]
    mtime_ns: int


def content_digest(content: bytes) -> bytes:
    """The digest by which contents are compared."""
    return hashlib.blake2b(content, digest_size=16).digest()


def check_image(
    images: ImageStore, row: int, side: int = 0, interpolation: str = BILINEAR
) -> tuple[ImageCheck, ResizedImage | None]:
    """Decode an image to its last pixel with Pillow, as RGB, and resize it for the cache. side: 0 returns no image."""
    num_bytes, digest = 0, b""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ignore unusual EXIF blocks; only the pixels matter
        try:
            mtime_ns = (images.state(row) or (0, 0))[1]  # before the pixels are read
            content = images.read(row)
            num_bytes, digest = len(content), content_digest(content)
            header, image = decode_with_header(content)
        except BadImage as problem:
            return ImageCheck(str(problem), num_bytes=num_bytes, digest=digest), None
    small = ResizedImage(shrink(image, side, interpolation), mtime_ns) if side else None
    size = header.width, header.height
    return ImageCheck("", _note(images.path(row), header), header.format, *size, num_bytes, digest), small


def _note(path: str, header: ImageHeader) -> str:
    ending = os.path.splitext(path)[1].lower()
    kind = "JPEG" if header.format == "MPO" else header.format
    notes = []
    if FORMAT_OF_ENDING.get(ending, kind) != kind:
        notes.append(f"{kind} named {ending}")
    if header.mode not in ("RGB", "L"):
        notes.append(f"{header.mode} instead of RGB")
    if header.orientation != 1:
        notes.append("turned by EXIF")
    if header.animated:
        notes.append("several images in one file, the first is used")
    if min(header.width, header.height) < SMALL:
        notes.append(f"shorter side of {min(header.width, header.height)} px")
    return ", ".join(notes)


def check_images(
    images: ImageStore, jobs: int, side: int = 0, interpolation: str = BILINEAR
) -> Iterator[tuple[ImageCheck, ResizedImage | None]]:
    """Check many images in their order, and resize them for the cache where side is not 0.

    jobs: number of processes; 1 uses this process. They end as ``in_processes`` says. Raises RunError when one dies.
    """
    num_images = len(images)
    if jobs == 1 or num_images <= CHUNK:
        yield from (check_image(images, row, side, interpolation) for row in range(num_images))
        return
    check_part = partial(_check_part, side=side, interpolation=interpolation)
    with closing(in_processes(check_part, images, jobs, CHUNK)) as parts:
        for part in parts:
            yield from part


def _check_part(images: ImageStore, side: int, interpolation: str) -> list[tuple[ImageCheck, ResizedImage | None]]:
    return [check_image(images, row, side, interpolation) for row in range(len(images))]
