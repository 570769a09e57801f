"""Selection of the loader and the decoder for a split."""

import logging
from pathlib import Path

import torch

from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.config.sizes import BILINEAR
from fastcpc.config.validation import feed_problem
from fastcpc.data.augment.normalize import Normaliser
from fastcpc.data.augment.policies import strong_policy
from fastcpc.data.augment.styles import STYLES
from fastcpc.data.cores import usable_cores
from fastcpc.data.dataset import AnySplit, ArraySplit, Dataset, EmbeddingSplit, ImageSplit
from fastcpc.data.embeddings.loader import EmbeddingLoader
from fastcpc.data.loaders.base import Loader
from fastcpc.data.loaders.cached_decoder import CachedDecoder
from fastcpc.data.loaders.dali_decoder import DaliDecoder
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.loaders.gpu_crops import GpuCropDecoder
from fastcpc.data.loaders.image_loader import Decoder, ImageLoader
from fastcpc.data.loaders.memory import MemoryLoader
from fastcpc.data.loaders.pillow_decoder import PillowDecoder
from fastcpc.data.loaders.split_files import BadImages, FileBytes
from fastcpc.data.prepare.cache import ImageCache, cache_path, open_cache
from fastcpc.data.prepare.index import index_path
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")
MOST_WORKERS = 16


def choose_loader(dataset: Dataset, data: DataConfig, device: torch.device) -> tuple[str, str]:
    """The loader that ``data.feed`` selects (memory, dali or torch), and the reason in a few words.

    Raises InputError for a loader that does not support this data set or is not installed.
    """
    asked = data.feed
    kinds = {EmbeddingSplit: "embeddings", ArraySplit: "arrays", ImageSplit: "images"}
    unfit = feed_problem(dataset.name, kinds[type(dataset.train)], asked)
    if unfit:
        raise InputError(unfit)
    if isinstance(dataset.train, EmbeddingSplit):
        return "memory", "batches of rows of a memory map"
    if isinstance(dataset.train, ArraySplit):
        return "memory", "all images fit in memory"
    problem = dali_problem()
    if asked == "dali" and problem:
        raise InputError(f"data.feed=dali: {problem}; pip install fastcpc[dali], or use data.feed=torch")
    if asked == "torch" or problem:
        why = "as asked" if asked == "torch" else f"auto: {problem}; pip install fastcpc[dali] for a faster one"
        return "torch", f"{why}; Pillow in {num_workers(data)} threads"
    where = "on the GPU" if device.type == "cuda" else "on the CPU"
    why = "as asked" if asked == "dali" else "auto: nvidia.dali is installed"
    return "dali", f"{why}; decodes {where}, {num_workers(data)} threads"


def describe_loader(dataset: Dataset, data: DataConfig, device: torch.device) -> str:
    """The loader, the reason for it, and the cache if there is one. Raises InputError as ``choose_loader`` does."""
    name, why = choose_loader(dataset, data, device)
    cache = cache_file(dataset, data)
    return f"{name} ({why})" + (f" for images that are not in the cache {cache}" if cache else "")


def num_workers(data: DataConfig) -> int:
    """Number of decoder threads: ``data.workers``, or one per core of this process, at most MOST_WORKERS."""
    if data.workers:
        return data.workers
    return min(usable_cores(), MOST_WORKERS)


def make_loader(
    split: AnySplit,
    dataset: Dataset,
    data: DataConfig,
    augment: AugmentConfig,
    device: torch.device,
    bad_list: Path | None = None,
) -> Loader:
    """The loader that ``data.feed`` selects, for one split of the data set.

    bad_list: file that gets a line per image that cannot be read. Raises InputError as ``choose_loader`` does.
    """
    name, _ = choose_loader(dataset, data, device)
    if isinstance(split, EmbeddingSplit):
        return EmbeddingLoader(split, dataset.mean, dataset.std, augment, device)
    if isinstance(split, ArraySplit):
        return MemoryLoader(split.pixels, dataset.mean, dataset.std, dataset.weak, strong_policy(augment), device)
    strong = strong_policy(augment, images=True)
    decoder = make_decoder(name, split, dataset, data, device, bad_list, STYLES[strong.style].fill)
    assert dataset.image_transform is not None
    return ImageLoader(len(split), dataset.image_transform, dataset.mean, dataset.std, strong, decoder, device)


def cache_file(dataset: Dataset, data: DataConfig) -> Path | None:
    """The cache file that ``data.cache`` names, or the one next to the index; None if there is no cache.

    Raises InputError if the named file does not exist.
    """
    if dataset.image_transform is None or data.cache == "off" or (data.cache == "auto" and not data.root):
        return None
    index = Path(data.index).expanduser() if data.index else index_path(data.root, data.name)
    path = cache_path(index, dataset.image_transform.resize) if data.cache == "auto" else Path(data.cache).expanduser()
    if path.is_file():
        return path
    if data.cache == "auto":
        return None
    raise InputError(f"data.cache={data.cache}: no such file; fastcpc-prepare --cache writes one")


def find_cache(split: ImageSplit, dataset: Dataset, data: DataConfig) -> ImageCache | None:
    """The cache of a split, from ``cache_file``; None if there is no cache.

    Raises InputError for a file that does not fit the split.
    """
    path = cache_file(dataset, data)
    if path is None:
        return None
    assert dataset.image_transform is not None
    again = f"fastcpc-prepare {data.name} --root {data.root} --cache {dataset.image_transform.resize}"
    interpolation = dataset.image_transform.interpolation
    again += "" if interpolation == BILINEAR else f" --interpolation {interpolation}"
    cache = open_cache(path, data.name, dataset.image_transform.resize, split, again, interpolation)
    missing = int((~cache.present).sum())
    if missing:
        logger.warning("%s: %s of %s images are not in it and are decoded", path, f"{missing:,}", f"{len(split):,}")
    return cache


def make_decoder(
    name: str,
    split: ImageSplit,
    dataset: Dataset,
    data: DataConfig,
    device: torch.device,
    bad_list: Path | None,
    strong_fill: int = 0,
) -> Decoder:
    """The decoder of a loader. strong_fill: level of pixels from outside the image in strong views."""
    assert dataset.image_transform is not None
    in_training = isinstance(dataset.train, ImageSplit) and split.images is dataset.train.images
    bad = BadImages(split, data.max_bad if in_training else None, bad_list)
    files = FileBytes(split.images, int(data.ram_cache * 1e9))
    normaliser = Normaliser(dataset.mean, dataset.std, dataset.image_transform.crop)
    cache, threads = find_cache(split, dataset, data), num_workers(data)
    on_cpu, on_gpu = device.type == "cpu", device.type == "cuda"
    pillow = PillowDecoder(
        files, dataset.image_transform, normaliser, bad, threads, cache=cache, normalise=on_cpu, strong_fill=strong_fill
    )
    decoder: Decoder = pillow
    if name == "dali":
        decoder = DaliDecoder(files, dataset.image_transform, normaliser, bad, threads, device, data.hw_decoder_load)
    if cache is None or (decoder is pillow and not on_gpu):
        return decoder
    return CachedDecoder(
        GpuCropDecoder(cache, dataset.image_transform, threads, device) if on_gpu else pillow, cache, decoder
    )
