"""Operations and copies to a GPU of the views of 64 images of 224 pixels per step, counted on any machine.

Made-up images are in a cache of 256 pixels, or decoded by threads. A pretended GPU executes the loader on tensors of
the real sizes (tests/support/devices/counting_gpu.py). Rows are per step, the mean of ``STEPS``. Writes
results/image_counts.json.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH.parent / "tests" / "support" / "devices")]
from counting_gpu import CountingGpu, Counts
from harness import arguments
from pretend_gpu import GPU, OnGpu, pretended_gpu
from torch import Tensor

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.augment import fused_check
from fastcpc.data.augment.batched import StrongAugmenter
from fastcpc.data.augment.fused import FusedOperations
from fastcpc.data.augment.policies import strong_policy
from fastcpc.data.dataset import ImageTransform
from fastcpc.data.loaders import gpu_crops
from fastcpc.data.loaders.base import ViewName
from fastcpc.data.loaders.gpu_crops import GpuCropDecoder
from fastcpc.data.loaders.image_loader import CHUNK, DecodedChunk, DecodeRequest, ImageLoader
from fastcpc.data.prepare.cache import ImageCache
from fastcpc.kernels.views import launch

IMAGES, STEPS, SIDE = 64, 4, 224
HEIGHT, WIDTH = 256, 341  # of a cached image
VIEWS: tuple[ViewName, ...] = ("weak", "weak", "strong", "strong")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ThreadCrops:
    """A decoder of files in threads, without files: crops in main memory."""

    num_decoded = 0

    def decode(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedChunk]:
        """Grey crops for each request."""
        for request in requests:
            views = tuple(torch.zeros(len(request.rows), SIDE, SIDE, 3, dtype=torch.uint8) for _ in request.drawn)
            yield DecodedChunk(request, request.rows, views)


def made_up_cache() -> ImageCache:
    """The cache of the images of a step."""
    pixels = np.zeros(IMAGES * HEIGHT * WIDTH * 3, np.uint8)
    offset_N = np.arange(IMAGES) * (HEIGHT * WIDTH * 3)
    return ImageCache(Path("made-up"), pixels, offset_N, np.tile((HEIGHT, WIDTH), (IMAGES, 1)))


class CountedKernel:
    """The view kernel: it counts its launches and writes nothing. Its scratch buffer stays in the cache."""

    def __init__(self, gpu: CountingGpu) -> None:
        self.gpu = gpu

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launched(pixels: Tensor, index: Tensor, plan: Tensor, *others: Any, **options: Any) -> None:
            out = next(other for other in reversed(others) if isinstance(other, OnGpu))
            self.gpu.launched(pixels, plan, out)

        return launched


def count(*, cached: bool, resized_crops: bool, images: int = IMAGES, kernel: bool = True) -> dict[str, Counts]:
    """The counts of a step by part: crops, operations of the strong views, and the rest with all copies.

    cached: whether the images are in the cache. resized_crops: data.random_resized_crop. kernel: whether the strong
    views are made by Triton.
    """
    gpu = CountingGpu()
    problem = "" if kernel else "operations of torch"
    with (
        pretended_gpu(gpu),
        patch.object(fused_check, "kernel_problem", lambda *_: problem),
        patch.object(launch, "view_kernel", CountedKernel(gpu)),
        patch.object(FusedOperations, "make", counted(gpu, "strong views", FusedOperations.make)),
        patch.object(gpu_crops, "crop_views", counted(gpu, "crops", gpu_crops.crop_views)),
        patch.object(StrongAugmenter, "apply", counted(gpu, "strong views", StrongAugmenter.apply)),
    ):
        transform = ImageTransform(HEIGHT, SIDE, resized_crops, flip=True)
        policy = strong_policy(AugmentConfig(strong="autoaugment"), images=True)
        decoder: Any = GpuCropDecoder(made_up_cache(), transform, 1, GPU) if cached else ThreadCrops()
        loader = ImageLoader(IMAGES, transform, MEAN, STD, policy, decoder, GPU)
        batches = [torch.arange(images) % IMAGES] * STEPS
        with gpu.stage("copies and the rest"), closing(loader.stream(batches, VIEWS, seed=1)) as stream:  # type: ignore[type-var]
            for _ in stream:
                pass
    return {
        name: Counts(**{key: round(value / STEPS) for key, value in asdict(total).items()})
        for name, total in gpu.stages.items()
    }


def counted(gpu: CountingGpu, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; its operations are counted for a stage of this name."""

    def call(*values: Any, **options: Any) -> Any:
        with gpu.stage(name):
            return function(*values, **options)

    return call


def main() -> int:
    """Print the table and write the JSON."""
    options = arguments((__doc__ or "").splitlines()[0]).parse_args()
    rows = []
    print(f"per step of {IMAGES} images, {', '.join(VIEWS)}; files: {2 * IMAGES} images, decoded {CHUNK} at a time")
    for source, cached, resized, images, kernel in (
        ("cache, crops", True, False, IMAGES, True),
        ("cache, crops, no Triton", True, False, IMAGES, False),
        ("cache, random resized crops", True, True, IMAGES, True),
        ("files", False, False, 2 * IMAGES, True),
    ):
        for part, one in count(cached=cached, resized_crops=resized, images=images, kernel=kernel).items():
            rows.append({"source": source, "part": part, **asdict(one)})
            print(
                f"{source:<30}{part:<22}{one.operations:>6} operations{one.num_bytes / 1e9:>8.3f} GB; "
                f"{one.sent} copies of {one.sent_bytes / 1e6:.1f} MB, {one.pageable} pageable"
            )
    path = options.results / "image_counts.json"
    path.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n", encoding="ascii")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
