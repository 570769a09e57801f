"""Image files made for tests, a data set of them, and its feeds; not a test itself."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset, ImageSplit, ImageTransform
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.loaders.base import Batch, ViewName
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.loaders.image_loader import ImageLoader
from fastcpc.data.rng import generator

CPU = torch.device("cpu")
FOUR: tuple[ViewName, ...] = ("weak", "weak", "strong", "strong")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def texture(height: int, width: int, seed: int, channels: int = 3) -> np.ndarray:
    """Noise with some smoothness, so that a shift by one pixel shows."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 8), max(2, width // 8), channels))
    planes = [Image.fromarray(coarse[..., c].astype(np.uint8)).resize((width, height)) for c in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def late_exif(content: bytes, orientation: int) -> bytes:
    """A PNG file with its orientation after the pixels."""
    body = b"eXIf" + turned(orientation).tobytes()[6:]
    chunk = len(body[4:]).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return content[:-12] + chunk + content[-12:]


def odd_files(folder: Path) -> list[Path]:
    """What is met in web sets, each readable."""
    rgb = Image.fromarray(texture(61, 83, 0))
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(texture(61, 83, 1)[..., 0]))
    deep = texture(40, 50, 2)[..., 0].astype(np.uint16) * 257
    saved: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain.jpg": (rgb, {"quality": 90}),
        "tall.jpg": (Image.fromarray(texture(301, 97, 3)), {}),
        "grey.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (Image.fromarray(texture(70, 60, 4, 4), "CMYK"), {}),
        **{f"exif{o}.jpg": (rgb, {"exif": turned(o)}) for o in (2, 3, 5, 6, 8)},
        "really_png.jpg": (rgb, {"format": "PNG"}),
        "really_gif.jpg": (rgb.quantize(64), {"format": "GIF"}),
        "alpha.png": (alpha, {}),
        "palette.png": (rgb.quantize(64), {"transparency": b"\x00\x80\xff"}),
        "deep.png": (Image.fromarray(deep), {}),
        "one.jpg": (Image.new("RGB", (1, 1), (200, 30, 60)), {}),
        "plain.webp": (rgb, {"lossless": True}),
        "xmp6.jpg": (rgb, {"xmp": xmp(6)}),
        "xmp6.png": (rgb, {"exif": turned(6)}),
        "exif6.webp": (rgb, {"lossless": True, "exif": turned(6)}),
        "doubled6.jpg": (rgb, {"exif": b"Exif\0\0" + turned(6).tobytes()}),
        "both1.jpg": (rgb, {"exif": turned(1), "xmp": xmp(6)}),  # EXIF is asked first
        "exif6.tif": (rgb, {"exif": turned(6)}),
        "grey_alpha.png": (alpha.convert("LA"), {}),
        "progressive.jpg": (rgb, {"progressive": True, "quality": 90}),
        "deep.tif": (Image.fromarray(deep), {}),
        "several.gif": (rgb.quantize(64), {"save_all": True, "append_images": [rgb.rotate(180).quantize(64)]}),
        "several.webp": (rgb, {"save_all": True, "append_images": [rgb.rotate(180)], "lossless": True}),
        "several.png": (rgb, {"save_all": True, "append_images": [rgb.rotate(180)]}),
        "several6.mpo": (rgb, {"save_all": True, "append_images": [rgb.rotate(180)], "exif": turned(6)}),
    }
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    (folder / "several6.mpo").rename(folder / "several6.jpg")
    (folder / "late6.png").write_bytes(late_exif((folder / "really_png.jpg").read_bytes(), 6))
    (folder / "deep_rgb.png").write_bytes(deep_png(texture(40, 50, 2)))
    return [folder / name.replace(".mpo", ".jpg") for name in saved] + [folder / "late6.png", folder / "deep_rgb.png"]


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG file of 16 bits per channel, which Pillow cannot write; 257 x the given levels. pixels: uint8 (H, W, 3)."""
    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.repeat(2, axis=2).reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def plain_files(folder: Path, num: int) -> list[Path]:
    paths = [folder / f"photo, {number}.jpg" for number in range(num)]  # with a comma and a blank, as in Clothing1M
    for number, path in enumerate(paths):
        Image.fromarray(texture(40 + number, 90 - number, 100 + number)).save(path, quality=90)
    return paths


def dataset_of(paths: Sequence[Path], *, resized: bool = False, crop: int = 24) -> Dataset:
    num = len(paths)
    split = ImageSplit(
        ImageFiles(list(map(str, paths))),
        np.zeros(num, np.int64),
        None,
        np.arange(num),
        tuple(path.name for path in paths),
    )
    transform = ImageTransform(resize=28, crop=crop, random_resized_crop=resized, flip=True)
    return Dataset("photos", ("a", "b"), split, {}, MEAN, STD, WeakPolicy(True, 0), image_transform=transform)


def loader_of(
    dataset: Dataset,
    name: Any,
    bad_list: Path | None = None,
    max_bad: float = 0.0,
    workers: int = 2,
    device: torch.device = CPU,
    **settings: Any,
) -> ImageLoader:
    data = DataConfig(feed=name, workers=workers, max_bad=max_bad, **settings)
    loader = make_loader(dataset.train, dataset, data, AugmentConfig(), device, bad_list)
    assert isinstance(loader, ImageLoader)
    return loader


def batches_of(num: int, size: int = 5, seed: int = 1) -> list[torch.Tensor]:
    return list(torch.randperm(num, generator=generator(seed)).split(size))


def levels(views: torch.Tensor) -> torch.Tensor:
    """Back to 0..255."""
    return (views * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.index.equal(b.index) and all(x.equal(y) for x, y in zip(a.views, b.views, strict=True))
        for a, b in zip(first, second, strict=True)
    )


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated.jpg": (lambda raw: raw[: len(raw) // 2], "truncated"),
    "empty.jpg": (lambda raw: b"", "empty"),
    "text.jpg": (lambda raw: b"<html>not found</html>", "not an image"),
    "head.jpg": (lambda raw: raw[:200], "."),
}


def damaged_files(folder: Path) -> list[Path]:
    buffer = io.BytesIO()
    Image.fromarray(texture(120, 90, 7)).save(buffer, format="JPEG")
    for name, (harm, _) in DAMAGE.items():
        (folder / name).write_bytes(harm(buffer.getvalue()))
    return [*(folder / name for name in DAMAGE), folder / "missing.jpg"]
