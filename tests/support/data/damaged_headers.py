"""Reads many image files with damaged headers in a process of its own, and prints what the worst of them took.

Not a test itself: ``python damaged_headers.py``. Each file must give an image or one BadImage.
"""

import io
import json
import resource
import struct
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fastcpc.data.image_files import FORMATS, BadImage, decode_with_header

HEADER = 96  # bytes of a file in which most damage is done
FLIPS = 24  # damaged copies of each file


def whole_files() -> dict[str, bytes]:
    """A small image in every format, in several modes."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels).resize((112, 80))
    frames = {"save_all": True, "append_images": [rgb.rotate(90)]}
    wanted = {
        "JPEG": ({}, {"progressive": True}, {"exif": b"Exif\0\0II*\0" + bytes(20)}),
        "PNG": ({}, frames),
        "BMP": ({},),
        "GIF": ({}, frames),
        "WEBP": ({}, {"lossless": True}, frames),
        "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_adobe_deflate"}),
        "JPEG2000": ({},),
        "PPM": ({},),
        "AVIF": ({},),
    }
    files = {}
    for format_ in FORMATS:
        for number, options in enumerate(wanted[format_]):
            buffer = io.BytesIO()
            rgb.save(buffer, format_, **options)
            files[f"{format_}{number}"] = buffer.getvalue()
    return files


def false_sizes(content: bytes) -> Iterator[bytes]:
    """The file with its width or height replaced wherever it is, by large, odd and zero numbers."""
    for order in "<>":
        for code in "HI":
            for old in (112, 80):
                for new in (0, 1, 8191, 30_000, 65_500, 2**31 - 1, 2**32 - 1):
                    if new < 2 ** (8 * struct.calcsize(code)):
                        place = content.find(struct.pack(order + code, old))
                        if 0 <= place < 400:
                            number = struct.pack(order + code, new)
                            yield content[:place] + number + content[place + len(number) :]
            both = [content.find(struct.pack(order + code, old)) for old in (112, 80)]
            if min(both) >= 0:  # the largest size that is read
                changed = bytearray(content)
                for place in both:
                    struct.pack_into(order + code, changed, place, 7000)
                yield bytes(changed)


def damaged(content: bytes, draws: np.random.Generator) -> Iterator[bytes]:
    """Cut off, false sizes, changed bytes in the header and behind it."""
    yield from (content[: int(len(content) * share)] for share in (0.01, 0.1, 0.5, 0.9, 0.999))
    yield from false_sizes(content)
    for number in range(FLIPS):
        changed = bytearray(content)
        end = HEADER if number % 4 else len(content)
        for place in draws.integers(2, min(end, len(content)), 1 + number % 3):
            changed[place] = draws.integers(256)
        yield bytes(changed)


def main() -> None:
    warnings.simplefilter("ignore")
    found: Counter[str] = Counter()
    slowest, failures = (0.0, ""), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, whole in whole_files().items():
        for number, content in enumerate(damaged(whole, np.random.default_rng(7))):
            start = time.process_time()
            try:
                _, image = decode_with_header(content)
                np.asarray(image).max()
                found["decoded"] += 1
            except BadImage as problem:
                found["refused"] += 1
                if "\n" in str(problem) or not str(problem):
                    failures.append(f"{name} {number}: {problem!r}")
            except BaseException as error:
                failures.append(f"{name} {number}: {error!r}")
            slowest = max(slowest, (time.process_time() - start, f"{name} {number}"))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    json.dump({**found, "slowest": slowest, "peak_mb": peak, "failures": failures}, sys.stdout)


if __name__ == "__main__":
    main()
