"""Reads image files: limits, header, and upright RGB pixels by Pillow.

Training, evaluation, fastcpc-prepare with its cache, fastcpc-predict and the report read all images here. The limits
are checked with the file's header, before memory for its pixels is allocated. This module decides which way is up;
DALI gets its decision.
"""

import contextlib
import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

logger = logging.getLogger("fastcpc")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is lower
MAX_BYTES = 2**29  # of a file: MAX_PIXELS without compression, 16 bits per channel, need 300 MB
MAX_PIXELS = 8192 * 6144  # images of 50-megapixel cameras. Pillow needs 4 bytes per pixel, twice while it converts
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}  # by data.interpolation
MAX_ASPECT = 64  # longer side : shorter side. The resized image then has at most 64 x data.resize x data.resize pixels
# Smaller files have a false size in their header. A JPEG has at least one bit per block of 8 x 8 pixels. LZW and
# deflate cannot compress pixels of 8 bits further than LARGE_PIXELS_PER_BYTE. It holds for large images only.
JPEG_PIXELS_PER_BYTE = 8 * 64
LARGE, LARGE_PIXELS_PER_BYTE = 2**24, 4096

_AVIF = ("AVIF",) if "avif" in features.modules and features.check_module("avif") else ()
# Formats that Pillow decodes itself. Without this list, Pillow runs Ghostscript on PostScript, whatever the file name.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "JPEG2000", "PPM", *_AVIF)
# Messages list them in this order. Case does not matter. Only decoding shows the format of a file.
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".jp2"),
    *((".avif",) if _AVIF else ()),
)
HEIC_ENDINGS = (".heic", ".heif")
NO_HEIC = "HEIC has no reader here; convert it to JPEG"

has_warned = Event()  # set once several frames were warned of
_warning = Lock()  # held by the thread that warns

ORIENTATION = 0x0112  # of EXIF: 1 is upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):  # noqa: N818 (always caught: counted and replaced)
    """A file without a decodable image. The message gives the reason on one line."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of a file.

    format: Pillow's name. mode: Pillow's name of the pixels. width, height: as stored. orientation: of EXIF or XMP,
    1 to 8. animated: whether the file has several images; the first one is used.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    animated: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the decoded image."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)


def read_bytes(path: str) -> bytes:
    """Read a whole file. Raises BadImage if it does not exist, cannot be read, is empty or too large."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise BadImage("not a file")
        if status.st_size > MAX_BYTES:
            raise BadImage(f"{status.st_size:,} bytes, more than {MAX_BYTES:,}")
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise BadImage("no such file") from error
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror})") from error
    if not content:
        raise BadImage("the file is empty")
    return content


def decode_image(content: bytes) -> Image.Image:
    """Decode a whole image to upright RGB: drop alpha, convert grey and CMYK, reduce 16 bits per channel to 8.

    content: of the file. Raises BadImage, also if only the end of the file is missing.
    """
    with _opened(content) as image:
        if _is_animated(image) and image.format != "MPO":  # phones put a preview behind the image
            warn_of_more_frames()
        return _upright_rgb(image)


def read_image_header(content: bytes) -> ImageHeader:
    """Read the header of a file. Raises BadImage."""
    with _opened(content) as image:
        return _header(image)


def decode_with_header(content: bytes) -> tuple[ImageHeader, Image.Image]:
    """Call ``read_image_header`` and ``decode_image``."""
    with _opened(content) as image:
        return _header(image), _upright_rgb(image)


def shrink(image: Image.Image, side: int, interpolation: str = "bilinear") -> NDArray[np.uint8]:
    """Resize an upright RGB image for the cache: at most ``side`` pixels on the shorter side. Returns (H, W, 3).

    interpolation: bilinear or bicubic.
    """
    width, height = image.size
    shorter = min(width, height)
    if shorter > side:
        image = image.resize((side * width // shorter, side * height // shorter), RESAMPLING[interpolation])
    return np.asarray(image)


def size_problem(width: int, height: int) -> str:
    """Why an image of this size is not decoded; empty if it is."""
    size = f"{width:,} x {height:,} pixels"
    if min(width, height) < 1:
        return f"{size}: no pixels"
    if width * height > MAX_PIXELS:
        return f"{size}: more than {MAX_PIXELS:,}; make it smaller"
    if max(width, height) > MAX_ASPECT * min(width, height):
        return f"{size}: the longer side is more than {MAX_ASPECT} times the shorter; crop or remove it"
    return ""


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Open an image within the limits. Raises BadImage for all errors of the block but MemoryError."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            problem = size_problem(*image.size) or _false_size(image, len(content))
            if problem:
                raise BadImage(problem)
            yield image
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        is_heic = content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
        raise BadImage(NO_HEIC if is_heic else "not an image of a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's limit is higher
        raise BadImage(f"more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise BadImage(" ".join(f"{error or type(error).__name__}".split())[:120]) from error


def _false_size(image: Image.Image, num_bytes: int) -> str:
    width, height = image.size
    allowed = LARGE_PIXELS_PER_BYTE * num_bytes if width * height > LARGE else MAX_PIXELS
    if image.format in ("JPEG", "MPO"):
        allowed = JPEG_PIXELS_PER_BYTE * num_bytes
    if width * height > allowed:
        return f"the header says {width:,} x {height:,} pixels, too many for {num_bytes:,} bytes"
    # libtiff allocates whole tiles
    tags = getattr(image, "tag_v2", {})
    if int(tags.get(322, 0)) * int(tags.get(323, 0)) > MAX_PIXELS:
        return "a tile of the file is larger than the image may be"
    return ""


def _header(image: Image.Image) -> ImageHeader:
    return ImageHeader(image.format or "", image.mode, *image.size, _orientation(image), _is_animated(image))


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what follows the first image may be damaged
        return False


def warn_of_more_frames() -> None:
    """Warn once per process, whichever thread is first."""
    if not has_warned.is_set():
        with _warning:
            if not has_warned.is_set():
                logger.warning("files with several frames or pages: the first one of each is used")
                has_warned.set()


def _orientation(image: Image.Image) -> int:
    """The orientation, 1 to 8; 1 if there is none that Pillow can read. Pillow turns TIFF images itself."""
    if image.format == "TIFF":
        return 1
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata; the pixels may be good
        return 1
    return found if found in TURNS else 1


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "RGB":
        return image.copy() if image.readonly else image
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise BadImage("its pixels are 32-bit numbers without a known range; convert it to 8 or 16 bits per channel")
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
        levels = np.asarray(image) // (257 if bits == 16 else 2 ** (bits - 8))
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # else Pillow warns about palettes
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
