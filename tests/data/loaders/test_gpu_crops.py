"""Views that a GPU crops from cached images: on a CPU, the same code gives what threads and Pillow give."""

import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_images import CPU, FOUR, MEAN, STD, batches_of, dataset_of, loader_of, same, texture
from PIL import Image
from torch._subclasses import FakeTensorMode

from fastcpc.config.schema import DataConfig
from fastcpc.data.augment.normalize import Normaliser
from fastcpc.data.augment.random_crop import NUM_RESIZED, CropGeometry
from fastcpc.data.dataset import Dataset, ImageSplit, ImageTransform
from fastcpc.data.image_files import RESAMPLING, shrink
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.loaders import factory, image_loader
from fastcpc.data.loaders.cached_decoder import CachedDecoder
from fastcpc.data.loaders.dali_decoder import DaliDecoder
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.loaders.gpu_crops import REACH, GpuCropDecoder, crop_views
from fastcpc.data.loaders.image_loader import DecodedChunk, Decoder, DecodeRequest, ImageLoader
from fastcpc.data.loaders.pillow_decoder import PART, PillowDecoder
from fastcpc.data.loaders.split_files import BadImages, FileBytes
from fastcpc.data.prepare.cache import CacheWriter, ImageCache, open_cache
from fastcpc.data.rng import generator

needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")
SIDE = 28  # of dataset_of
# Height and width; smaller than the cache's side, of it, and far from square.
SIZES = [(40, 28), (28, 39), (20, 60), (28, 28), (1, 1), (28, 300), (250, 28), (19, 20), (50, 28), (3, 4)]


def cache_of(images: list[np.ndarray]) -> ImageCache:
    """The images as they are, one after another."""
    offset_N = np.cumsum([32, *(image.size for image in images[:-1])])
    pixels = np.concatenate([np.zeros(32, np.uint8), *(image.reshape(-1) for image in images)])
    return ImageCache(Path("-"), pixels, offset_N, np.array([image.shape[:2] for image in images]))


def some_cache() -> ImageCache:
    return cache_of([texture(height, width, 7 * i) for i, (height, width) in enumerate(SIZES)])


def threads_of(cache: ImageCache, transform: ImageTransform) -> PillowDecoder:
    names = tuple(str(row) for row in range(len(cache.offset_N)))
    split = ImageSplit(ImageFiles(names), np.zeros(len(names), np.int64), None, np.arange(len(names)), names)
    normaliser, bad = Normaliser(MEAN, STD, transform.crop), BadImages(split, 0.0, None)
    return PillowDecoder(FileBytes(split.images, 0), transform, normaliser, bad, 2, cache=cache, normalise=False)


def requests_of(transform: ImageTransform, num_images: int, counts: range, views: Any) -> Iterator[DecodeRequest]:
    geometry = CropGeometry(transform)
    for count in counts:
        draws = generator(5, count)
        rows = torch.randint(num_images, (count,), generator=draws).numpy()
        yield DecodeRequest(
            rows, tuple(geometry.draw(view, count, draws) for view in views), (None,) * len(views), False
        )


def cuts_of(decoder: Decoder, requests: Any) -> list[DecodedChunk]:
    with closing(decoder.decode(requests)) as cuts:  # type: ignore[type-var]
        return list(cuts)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("crop", [8, 17, 28])
def test_views_equal_those_of_the_pillow_decoder(crop: int, boxes: bool, interpolation: str) -> None:
    """Test views beside boxes too: of a small image they need two sizes."""
    cache, transform = some_cache(), ImageTransform(SIDE, crop, boxes, True, interpolation)
    packed, views = GpuCropDecoder(cache, transform, 2, CPU), ("weak", "test", "weak")
    ours, theirs = (
        cuts_of(decoder, requests_of(transform, len(SIZES), range(1, 24), views))
        for decoder in (packed, threads_of(cache, transform))
    )
    assert len(ours) == 23 and packed.num_decoded == 0
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.rows, b.rows)
        for number, (x, y) in enumerate(zip(a.views, b.views, strict=True)):
            assert x.dtype == torch.uint8 and x.is_contiguous()
            is_resized_crop = boxes and number != 1
            largest = REACH[interpolation] if is_resized_crop else 0  # Pillow may take columns first
            assert x.shape == y.shape and (x.int() - y.int()).abs().max() <= largest
            if is_resized_crop:
                assert x.ne(y).float().mean() < 0.05


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    side=st.integers(1, 40),
    seed=st.integers(0, 2**20),
    flip=st.booleans(),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_resized_crops_equal_pillow_rows_first(
    size: tuple[int, int], side: int, seed: int, flip: bool, interpolation: str
) -> None:
    image, transform = texture(*size, seed), ImageTransform(SIDE, side, True, flip, interpolation)
    drawn = torch.rand(6, NUM_RESIZED, generator=generator(seed), dtype=torch.float64).numpy()
    request = DecodeRequest(np.zeros(6, np.int64), (drawn,), (None,), False)
    (decode,) = cuts_of(GpuCropDecoder(cache_of([image]), transform, 1, CPU), [request])
    geometry = CropGeometry(transform)
    boxes = geometry.boxes(drawn, np.array([size] * 6)).astype(int).tolist()
    for i, (top, left, bottom, right) in enumerate(boxes):
        lines = Image.fromarray(image[top:bottom, left:right]).resize((side, bottom - top), RESAMPLING[interpolation])
        expected = np.asarray(lines.resize((side, side), RESAMPLING[interpolation]))
        if geometry.mirrored(drawn)[i]:
            expected = expected[:, ::-1]
        assert np.array_equal(decode.views[0][i].numpy(), expected)


def stored(tmp_path: Path, missing: int = 0) -> tuple[Dataset, ImageCache, str]:
    """A data set, its cache, and the table of that; some of the last images are not in it."""
    paths = [tmp_path / f"{i}.png" for i in range(13)]
    for i, path in enumerate(paths):
        Image.fromarray(texture(*((60, 45), (28, 39), (20, 61))[i % 3], i)).save(path)
    table = tmp_path / "photos.parquet"
    with CacheWriter(table, DataConfig().name, SIDE, len(paths), 0.0) as writer:
        for path in paths[: len(paths) - missing]:
            status = path.stat()
            writer.add(path.name, shrink(Image.open(path), SIDE), status.st_size, status.st_mtime_ns)
    dataset = dataset_of(paths)
    assert isinstance(dataset.train, ImageSplit)
    return dataset, open_cache(table, DataConfig().name, SIDE, dataset.train, "-"), str(table)


def gpu_crop_loader(dataset: Dataset, cache: ImageCache, table: str) -> ImageLoader:
    """As on a GPU, but for the device."""
    loader = loader_of(dataset, "torch", cache=table)
    assert dataset.image_transform is not None
    loader.decoder = CachedDecoder(GpuCropDecoder(cache, dataset.image_transform, 2, CPU), cache, loader.decoder)
    return loader


@pytest.mark.parametrize("chunk", [4, 64])
@pytest.mark.parametrize("missing", [0, 3])
def test_streams_equal_those_of_the_pillow_decoder(
    tmp_path: Path, missing: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of several chunks, of which some are cached and some are not; parts of them; and a later start."""
    monkeypatch.setattr(image_loader, "CHUNK", chunk)
    dataset, cache, table = stored(tmp_path, missing)
    ours, theirs = gpu_crop_loader(dataset, cache, table), loader_of(dataset, "torch", cache=table)
    for views in (FOUR, ("test", "weak")):
        batches = batches_of(13, 9)
        expected = list(theirs.stream(batches, views, 2))
        assert same(expected, list(ours.stream(batches, views, 2)))
        assert same(expected[1:], list(ours.stream(batches, views, 2, 1)))
    part = torch.tensor([3, 0])
    expected = list(theirs.stream(batches, FOUR, 2, part=part))
    assert same(expected, list(ours.stream(batches, FOUR, 2, part=part)))
    assert bool(missing) == (ours.decoder.num_decoded > 0)


def test_closed_stream_leaves_the_decoder_usable(tmp_path: Path) -> None:
    loader, batches = gpu_crop_loader(*stored(tmp_path)), batches_of(13, 3)
    expected = list(loader.stream(batches, FOUR, 4))
    left = iter(loader.stream(batches_of(13, 3, seed=9), FOUR, 3))
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert same(expected, list(loader.stream(batches, FOUR, 4)))


def test_stream_closes_during_a_copy() -> None:
    """What has not begun is never done; what has begun writes into memory that is still there."""
    begun, go, taken = threading.Event(), threading.Event(), list[int]()

    class Held(ImageCache):
        def image(self, row: int) -> Any:
            taken.append(row)
            if row >= 20:
                begun.set()
                go.wait()
            return super().image(row)

    plain = cache_of([texture(28, 30, row) for row in range(60)])
    transform = ImageTransform(SIDE, 24, random_resized_crop=False, flip=False)
    decoder = GpuCropDecoder(Held(plain.path, plain.pixels, plain.offset_N, plain.size_N2), transform, 1, CPU)
    rows = np.arange(60).reshape(3, 20)
    cuts = decoder.decode(DecodeRequest(some, (np.empty((20, 0)),), (None,), True) for some in rows)
    assert next(cuts).views[0].shape == (20, 24, 24, 3)
    assert begun.wait(60)
    cuts.close()  # type: ignore[attr-defined]
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("crops")]
    del cuts, decoder  # its threads end when they have nothing more to do
    go.set()
    for thread in threads:
        thread.join()
    assert taken == list(range(20 + PART))


def test_gpu_crops_read_nothing_back() -> None:
    """Tensors without values, which cannot be read, on a device of their own, which no tensor of the CPU may meet."""
    with FakeTensorMode():
        pixels = torch.empty(5000, 3, dtype=torch.uint8, device="cuda")
        table = torch.empty(2, 5, 7, dtype=torch.int64, device="cuda")
        views = crop_views(pixels, table, (None, (40, 3)), 17)
    for view in views:
        assert view.device.type == "cuda" and view.shape == (7, 17, 17, 3) and view.dtype == torch.uint8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_pixels_for_a_gpu_are_pinned(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, empty = list[bool](), torch.empty

    def spy(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*shape, **options)  # there is nothing to pin it with

    transform = ImageTransform(SIDE, 24, random_resized_crop=False, flip=False)
    decoder = GpuCropDecoder(some_cache(), transform, 1, torch.device(device))
    monkeypatch.setattr(torch, "empty", spy)
    request = DecodeRequest(np.arange(2), (np.empty((2, 0)),), (None,), True)
    with suppress(RuntimeError, AssertionError) if device == "cuda" else nullcontext():  # a copy to no GPU
        next(decoder.decode([request]))
    assert asked[0] == (device == "cuda")


@pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])
def test_gpu_crop_decoder_is_chosen_for_a_gpu(tmp_path: Path, name: str) -> None:
    dataset, _, table = stored(tmp_path, 2)
    split: Any = dataset.train

    def chosen(device: str, cache: str = table) -> Any:
        return factory.make_decoder(name, split, dataset, DataConfig(cache=cache), torch.device(device), None)

    behind = PillowDecoder if name == "torch" else DaliDecoder
    on_gpu, on_cpu = chosen("cuda"), chosen("cpu")
    assert type(on_gpu.cached) is GpuCropDecoder and on_gpu.cached.device.type == "cuda"
    assert type(on_gpu.behind) is behind
    assert type(on_cpu if name == "torch" else on_cpu.cached) is PillowDecoder
    assert type(chosen("cuda", "off")) is type(chosen("cpu", "off")) is behind
