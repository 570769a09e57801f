"""What reading an image file gives: pixels by value, limits, and one reason for everything that cannot be read."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import damaged_headers
import numpy as np
import pytest
import torch
from made_images import DAMAGE, damaged_files, dataset_of, loader_of, odd_files, plain_files, texture
from PIL import Image

from fastcpc.data import image_files
from fastcpc.data.image_files import (
    MAX_ASPECT,
    MAX_PIXELS,
    BadImage,
    decode_image,
    read_bytes,
    read_image_header,
    size_problem,
)
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.prepare.check_images import check_image
from fastcpc.data.test_transform import InferenceTransform, center_crop_view

needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")


def png(width: int, height: int) -> bytes:
    """A black image of 1 bit per pixel, whatever its size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj()
    lines = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    chunks = ((b"IHDR", header), (b"IDAT", lines), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def false_jpeg() -> bytes:
    """Its header says 16,000 x 3,000 pixels; the data is of 64 x 48."""
    content = encoded(Image.fromarray(texture(48, 64, 1)), "JPEG")
    return content.replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 3000, 16_000))


TOO_LARGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "flat": (lambda: png(60_000, 1), "60,000 x 1 pixels: the longer side is more than 64 times the shorter; crop"),
    "tall": (lambda: png(1, 60_000), "1 x 60,000 pixels: the longer side is more than 64 times the shorter; crop"),
    "strip": (lambda: png(40_000, 1), "40,000 x 1 pixels: the longer side is more than 64 times the shorter; crop"),
    "huge": (lambda: png(10_000, 10_000), "more than 50,331,648"),
    "bomb": (lambda: png(30_000, 30_000), "more than 50,331,648 pixels; make it smaller"),
    "false": (false_jpeg, "the header says 16,000 x 3,000 pixels, too many for"),
}


@pytest.fixture(scope="module")
def too_large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("large")
    for name, (make, _) in TOO_LARGE.items():
        (folder / name).write_bytes(make())
    return {name: folder / name for name in TOO_LARGE}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_size_is_limited_before_the_pixels_are_read(
    name: str, too_large: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fastcpc-prepare with its cache, in fastcpc-predict, in the report, and for DALI."""
    monkeypatch.setattr(Image.Image, "resize", None)  # never called; neither is load
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    path, reason = too_large[name], TOO_LARGE[name][1]
    assert reason in check_image(ImageFiles([str(path)]), 0, 256)[0].problem
    inputs = InferenceTransform(3, 256, 224, (0.0,) * 3, (1.0,) * 3)
    readers: list[Callable[[], object]] = [
        lambda: decode_image(path.read_bytes()),
        lambda: read_image_header(path.read_bytes()),
        lambda: center_crop_view(str(path), inputs),
    ]
    for read in readers:
        with pytest.raises(BadImage, match=reason):
            read()


@pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])
def test_training_replaces_images_over_the_limits(name: str, too_large: dict[str, Path], tmp_path: Path) -> None:
    paths = [*plain_files(tmp_path, 4), *too_large.values()]
    loader = loader_of(dataset_of(paths), name, tmp_path / "bad.txt", max_bad=1.0)
    (batch,) = loader.stream([torch.arange(len(paths))], ("weak", "strong"), 1)
    assert batch.index[:4].equal(torch.arange(4)) and (batch.index < 4).all()
    lines = dict(line.split("\t") for line in (tmp_path / "bad.txt").read_text().splitlines())
    assert {Path(path).name for path in lines} == set(TOO_LARGE)
    assert all(TOO_LARGE[Path(path).name][1] in reason for path, reason in lines.items())


def test_images_at_the_limits_are_read() -> None:
    assert decode_image(png(MAX_ASPECT, 1)).size == (MAX_ASPECT, 1)
    assert size_problem(8192, 6144) == "" and MAX_PIXELS == 8192 * 6144
    for options in ({"quality": 1}, {"optimize": True, "progressive": True}):  # the best compression that JPEG has
        assert decode_image(encoded(Image.new("L", (3000, 3000)), "JPEG", **options)).size == (3000, 3000)


def test_only_files_of_a_limited_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", tmp_path):
        with pytest.raises(BadImage, match="not a file"):
            read_bytes(str(path))
    monkeypatch.setattr(image_files, "MAX_BYTES", 3)
    (tmp_path / "a.jpg").write_bytes(b"1234")
    with pytest.raises(BadImage, match="4 bytes, more than 3"):
        read_bytes(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(kind: type) -> None:
    image = Image.fromarray(texture(30, 40, 1)[..., 0].astype(kind))
    with pytest.raises(BadImage, match="32-bit numbers without a known range; convert it to 8 or 16 bits"):
        decode_image(encoded(image, "TIFF"))


def test_heic_has_its_own_reason() -> None:
    with pytest.raises(BadImage, match="HEIC has no reader here; convert it to JPEG"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


def test_unreadable_exif_does_not_spoil_the_pixels() -> None:
    image = Image.fromarray(texture(30, 40, 1))
    content = encoded(image, "PNG", exif=b"Exif\0\0no EXIF at all")
    assert np.array_equal(np.asarray(decode_image(content)), np.asarray(image))


def test_the_first_of_several_frames_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "has_warned", threading.Event())
    rgb = Image.fromarray(texture(30, 40, 1))
    content = encoded(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)])
    say = image_files.logger.warning

    def slow(message: str) -> None:
        time.sleep(0.05)  # other threads come by
        say(message)

    monkeypatch.setattr(image_files.logger, "warning", slow)
    with ThreadPoolExecutor(3) as pool:
        for image in pool.map(decode_image, [content] * 6):
            assert np.array_equal(np.asarray(image), np.asarray(rgb))
    assert [record.message for record in caplog.records] == [
        "files with several frames or pages: the first one of each is used"
    ]


def test_damaged_headers_give_an_image_or_a_reason() -> None:
    """About a thousand files, within a second and 500 MB each."""
    done = subprocess.run([sys.executable, damaged_headers.__file__], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["decoded"] > 100 and found["refused"] > 400
    assert found["slowest"][0] < 1 and found["peak_mb"] < 500, found


def test_pixels_of_odd_files(tmp_path: Path) -> None:
    read = {path.name: np.asarray(decode_image(read_bytes(str(path)))).astype(int) for path in odd_files(tmp_path)}
    rgb = texture(61, 83, 0).astype(int)
    assert all(pixels.ndim == 3 and pixels.shape[2] == 3 for pixels in read.values())
    for name in ("really_png.jpg", "alpha.png", "plain.webp"):
        assert np.array_equal(read[name], rgb), name
    for name in ("deep.png", "deep.tif"):
        assert np.array_equal(read[name], np.repeat(texture(40, 50, 2)[..., :1], 3, axis=2)), name
    assert np.array_equal(read["deep_rgb.png"], texture(40, 50, 2))
    upright = {"exif2.jpg": rgb[:, ::-1], "exif3.jpg": rgb[::-1, ::-1], "exif5.jpg": rgb.transpose(1, 0, 2)}
    upright |= {name: np.rot90(rgb, -1) for name in read if name.partition(".")[0].endswith("6")}
    upright |= {"exif8.jpg": np.rot90(rgb, 1), "both1.jpg": rgb, "several.webp": rgb, "several.png": rgb}
    assert len(upright) == 15
    for name, pixels in upright.items():
        assert np.abs(read[name] - pixels).mean() < 8, name
    for name, pixels in read.items():
        head = read_image_header(read_bytes(str(tmp_path / name)))
        assert name == "late6.png" or head.upright_size == pixels.shape[:2], name  # its EXIF is behind the pixels
        assert head.animated == name.startswith("several"), name


def test_damage_is_named(tmp_path: Path) -> None:
    for path in damaged_files(tmp_path):
        with pytest.raises(BadImage, match=DAMAGE.get(path.name, (None, "no such file"))[1]):
            decode_image(read_bytes(str(path)))
