"""Feeds of image files on a GPU, beside the same on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import FOUR, batches_of, dataset_of, levels, loader_of, odd_files, plain_files, same

from fastcpc.config.schema import DataConfig
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.prepare.cache import CacheWriter
from fastcpc.data.prepare.check_images import check_image

pytestmark = pytest.mark.gpu
needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")
each_loader = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])
GPU = torch.device("cuda")
SIDE = 28  # of dataset_of


def cache_of(paths: list[Path], folder: Path) -> Path:
    """All images but the first, resized."""
    table = folder / f"photos.cache-{SIDE}.parquet"
    with CacheWriter(table, DataConfig().name, SIDE, len(paths), 0.0) as writer:
        for path in paths[1:]:
            check, small = check_image(ImageFiles([str(path)]), 0, SIDE)
            assert small is not None
            writer.add(path.name, small.pixels, check.num_bytes, small.mtime_ns)
    return table


@each_loader
@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_views_are_those_of_a_cpu(tmp_path: Path, name: str, resized: bool, cached: bool) -> None:
    """On the device, channels_last, bit-identical twice, and no value asked of it."""
    paths = [*plain_files(tmp_path, 12), *odd_files(tmp_path)]
    dataset, batches = dataset_of(paths, resized=resized), batches_of(len(paths), 7)
    cache = str(cache_of(paths, tmp_path)) if cached else "off"
    views = ("test", *FOUR)
    expected = list(loader_of(dataset, name, cache=cache).stream(batches, views, 5))
    loader = loader_of(dataset, name, device=GPU, cache=cache)
    first = list(loader.stream(batches, views, 5))  # memory is allocated on first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        served = list(loader.stream(batches, views, 5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert same(first, served)
    for ours, theirs in zip(served, expected, strict=True):
        assert ours.index.device.type == "cuda" and ours.index.cpu().equal(theirs.index)
        for number, (view, reference) in enumerate(zip(ours.views, theirs.views, strict=True)):
            assert view.device.type == "cuda" and view.is_contiguous(memory_format=torch.channels_last)
            apart = (levels(view.cpu()) - levels(reference)).abs()
            assert apart.mean() < (6 if views[number] == "strong" else 1.5)  # solarize turns one level into many
            assert np.quantile(apart.numpy(), 0.95) < 40


@each_loader
def test_closed_and_parallel_streams_do_not_interfere(tmp_path: Path, name: str) -> None:
    paths = plain_files(tmp_path, 13)
    loader = loader_of(dataset_of(paths), name, device=GPU)
    expected = list(loader.stream(batches_of(13, 3, seed=2), FOUR, 4))
    left = iter(loader.stream(batches_of(13, 3, seed=1), FOUR, 3))
    next(left)
    assert same(expected, list(loader.stream(batches_of(13, 3, seed=2), FOUR, 4)))
    left.close()  # type: ignore[attr-defined]
    assert same(expected, list(loader.stream(batches_of(13, 3, seed=2), FOUR, 4)))
