"""Files in a form that DALI decodes to the same upright pixels as Pillow.

``dali_decoder`` calls it. DALI and Pillow find the orientation of an image in different places. So DALI gets JPEG files
with one EXIF header, which states the orientation that Pillow found. Other turned or unusual files are decoded by
Pillow, and DALI gets their pixels as a BMP file in memory.
"""

import io
import struct

from PIL import Image

from fastcpc.data.image_files import ORIENTATION, ImageHeader

FORMATS = ("PNG", "WEBP", "BMP")  # beside JPEG: DALI decodes these to Pillow's values, +-1
MODES = ("RGB", "RGBA", "L", "P")
METADATA = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type", b"EXIF", b"XMP ")  # PNG may have it after the pixels
SOI, APP1, SOS = b"\xff\xd8", 0xE1, 0xDA
DEPTH_OF_PNG = 24  # position of the number of bits per channel


def dali_decodes(content: bytes, header: ImageHeader) -> bool:
    """Whether DALI decodes a file itself, after ``dali_bytes``."""
    if header.format in ("JPEG", "MPO"):
        return header.mode in ("RGB", "L") and content.startswith(SOI)
    if header.format not in FORMATS or header.mode not in MODES or header.animated or header.orientation != 1:
        return False
    if header.format == "PNG" and content[DEPTH_OF_PNG] > 8:
        return False
    return not any(word in content for word in METADATA)


def dali_bytes(content: bytes, orientation: int) -> bytes:
    """A file with the only EXIF header that DALI shall see. Files without metadata do not change.

    content: of a file that ``dali_decodes``. orientation: of its header.
    """
    if not content.startswith(SOI):
        return content
    kept, place, changed = [SOI], len(SOI), orientation != 1
    if changed:
        kept.append(_exif(orientation))
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] not in (SOS, 0xFF, 0):
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if content[place + 1] == APP1:  # EXIF or XMP
            changed = True
        else:
            kept.append(content[place:end])
        place = end
    return b"".join((*kept, content[place:])) if changed else content


def bitmap(image: Image.Image) -> bytes:
    """An RGB image as a BMP file, which costs no compression."""
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    return buffer.getvalue()


def _exif(orientation: int) -> bytes:
    """The segment of a JPEG file that states an orientation: EXIF with one entry."""
    entry = struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    return bytes((0xFF, APP1)) + struct.pack(">H", len(body) + 2) + body
