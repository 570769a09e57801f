"""Which feed serves a split."""

import logging
import os
from pathlib import Path

import torch

from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.data.dali_lane import dali_fault
from fastcpc.data.feed import Feed
from fastcpc.data.memory import MemoryFeed
from fastcpc.data.photo_cached import CachedDecoder
from fastcpc.data.photo_dali import DaliDecoder
from fastcpc.data.photo_feed import Decoder, PhotoFeed
from fastcpc.data.photo_files import BadImages, FileBytes
from fastcpc.data.photo_packed import PackedDecoder
from fastcpc.data.photo_pixels import Normaliser
from fastcpc.data.photo_torch import ThreadDecoder
from fastcpc.data.photos.cache import PhotoCache, cache_path, open_cache
from fastcpc.data.photos.index import index_path
from fastcpc.data.policies import strong_policy
from fastcpc.data.split import AnySplit, Dataset, PhotoSplit, Split
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")
MOST_WORKERS = 16


def choose_feed(dataset: Dataset, data: DataConfig, device: torch.device) -> tuple[str, str]:
    """The feed that ``data.feed`` stands for here: memory, dali or torch; and why, in a few words.

    Raises InputError for a feed that cannot serve this data set, or is not installed.
    """
    asked = data.feed
    if isinstance(dataset.train, Split):
        if asked not in ("auto", "memory"):
            raise InputError(
                f"data.feed={asked}: serves image files, and {dataset.name} is held in memory; use auto or memory"
            )
        return "memory", "all images fit in memory"
    if asked == "memory":
        raise InputError(f"data.feed=memory: {dataset.name} is read from image files; use auto, dali or torch")
    fault = dali_fault()
    if asked == "dali" and fault:
        raise InputError(f"data.feed=dali: {fault}; pip install fastcpc[dali], or use data.feed=torch")
    if asked == "torch" or fault:
        why = "as asked" if asked == "torch" else f"auto: {fault}; pip install fastcpc[dali] for a faster one"
        return "torch", f"{why}; Pillow in {num_workers(data)} threads"
    where = "on the GPU" if device.type == "cuda" else "on the CPU"
    why = "as asked" if asked == "dali" else "auto: nvidia.dali is installed"
    return "dali", f"{why}; decodes {where}, {num_workers(data)} threads"


def describe_feed(dataset: Dataset, data: DataConfig, device: torch.device) -> str:
    """The feed, why this one, and the resized photos that it cuts its views from where there are any; raises as
    ``choose_feed`` does."""
    name, why = choose_feed(dataset, data, device)
    cache = cache_file(dataset, data)
    return f"{name} ({why})" + (f" for photos that are not in the cache {cache}" if cache else "")


def num_workers(data: DataConfig) -> int:
    """Threads that decode: ``data.workers``, or one for each core that this process may use."""
    if data.workers:
        return data.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def make_feed(
    split: AnySplit,
    dataset: Dataset,
    data: DataConfig,
    augment: AugmentConfig,
    device: torch.device,
    bad_list: Path | None = None,
) -> Feed:
    """The feed that ``data.feed`` names, for one split of the data set.

    bad_list: file that gets a line for each image that cannot be read. Raises InputError as ``choose_feed`` does.
    """
    name, _ = choose_feed(dataset, data, device)
    if isinstance(split, Split):
        return MemoryFeed(split.pixels, dataset.mean, dataset.std, dataset.weak, strong_policy(augment), device)
    decoder = _decoder(name, split, dataset, data, device, bad_list)
    assert dataset.photo is not None
    strong = strong_policy(augment, photos=True)
    return PhotoFeed(len(split), dataset.photo, dataset.mean, dataset.std, strong, decoder, device)


def cache_file(dataset: Dataset, data: DataConfig) -> Path | None:
    """The table of the resized photos that ``data.cache`` names, or that lies beside the index; None where there is
    none. Raises InputError for a name without a file."""
    if dataset.photo is None or data.cache == "off" or (data.cache == "auto" and not data.root):
        return None
    index = Path(data.index).expanduser() if data.index else index_path(data.root, data.name)
    path = cache_path(index, dataset.photo.resize) if data.cache == "auto" else Path(data.cache).expanduser()
    if path.is_file():
        return path
    if data.cache == "auto":
        return None
    raise InputError(f"data.cache={data.cache}: no such file; fastcpc-prepare --cache writes one")


def find_cache(split: PhotoSplit, dataset: Dataset, data: DataConfig) -> PhotoCache | None:
    """The resized photos of a split in ``cache_file``; None where there are none.

    Raises InputError for a file that cannot serve.
    """
    path = cache_file(dataset, data)
    if path is None:
        return None
    assert dataset.photo is not None
    again = f"fastcpc-prepare {data.name} --root {data.root} --cache {dataset.photo.resize}"
    cache = open_cache(path, data.name, dataset.photo.resize, split, again)
    missing = int((~cache.present).sum())
    if missing:
        logger.warning("%s: %s of %s photos are not in it and are decoded", path, f"{missing:,}", f"{len(split):,}")
    return cache


def _decoder(
    name: str, split: PhotoSplit, dataset: Dataset, data: DataConfig, device: torch.device, bad_list: Path | None
) -> Decoder:
    assert dataset.photo is not None
    in_training = isinstance(dataset.train, PhotoSplit) and split.paths is dataset.train.paths
    bad = BadImages(split, data.max_bad if in_training else None, bad_list)
    files = FileBytes(split.paths, int(data.ram_cache * 1e9))
    normaliser = Normaliser(dataset.mean, dataset.std, dataset.photo.crop)
    cache, threads = find_cache(split, dataset, data), num_workers(data)
    on_cpu, on_gpu = device.type == "cpu", device.type == "cuda"
    pillow = ThreadDecoder(files, dataset.photo, normaliser, bad, threads, cache=cache, normalise=on_cpu)
    decoder: Decoder = pillow
    if name == "dali":
        decoder = DaliDecoder(files, dataset.photo, normaliser, bad, threads, device, data.hw_decoder_load)
    if cache is None or (decoder is pillow and not on_gpu):
        return decoder
    return CachedDecoder(PackedDecoder(cache, dataset.photo, threads, device) if on_gpu else pillow, cache, decoder)
