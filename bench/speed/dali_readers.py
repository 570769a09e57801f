"""The usual DALI set-up: a pipeline for each view, which reads and decodes every image itself."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastcpc.data.loaders.base import ViewName

RESIZE, CROP, BATCH = 256, 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREFETCH = 2

dali: Any = importlib.import_module("nvidia.dali")
auto_augment: Any = importlib.import_module("nvidia.dali.auto_aug.auto_augment")


@dali.pipeline_def(batch_size=BATCH, prefetch_queue_depth=PREFETCH, enable_conditionals=True)  # type: ignore[untyped-decorator]
def photos(paths: Sequence[str], view: ViewName, on_gpu: bool) -> Any:
    """Read, decode, resize, crop, flip, normalise."""
    fn, types = dali.fn, dali.types
    encoded, _ = fn.readers.file(files=list(paths), pad_last_batch=True, name="reader")
    images = fn.decoders.image(encoded, device="mixed" if on_gpu else "cpu", output_type=types.RGB)
    images = fn.resize(images, resize_shorter=RESIZE, interp_type=types.INTERP_TRIANGULAR)
    place = {} if view == "test" else {f"crop_pos_{axis}": fn.random.uniform(range=(0.0, 1.0)) for axis in "xy"}
    images = fn.crop(images, crop=(CROP, CROP), **place)
    if view == "strong":
        images = auto_augment.auto_augment_image_net(images, shape=(CROP, CROP))
    return fn.crop_mirror_normalize(
        images,
        mirror=0 if view == "test" else fn.random.coin_flip(),
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
    )


class DaliReader:
    """Batches of one view of the images, in the order of the paths, repeated without end."""

    def __init__(self, paths: Sequence[str], view: ViewName, num_threads: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._pipeline = photos(
            paths, view, on_gpu, num_threads=num_threads, device_id=(device.index or 0) if on_gpu else None, seed=1
        )
        self._pipeline.build()
        self._pipeline.schedule_run()  # the first call schedules as many runs as may be ahead, those after it one each
        for _ in range(PREFETCH):
            self._pipeline.share_outputs()
            self._pipeline.release_outputs()

    def batches(self, num: int) -> Iterator[Tensor]:
        """The next ``num`` batches, float32 (B, 3, S, S) each, in memory that is valid until the next request.

        No work happens between two calls. ``Pipeline.run`` would already prepare batches that nobody requested.
        """
        ahead = min(PREFETCH, num)
        for _ in range(ahead):
            self._pipeline.schedule_run()
        for number in range(num):
            (views,) = self._pipeline.share_outputs()
            batch: Tensor = from_dlpack(views.as_tensor())
            yield batch
            self._pipeline.release_outputs()
            if number + ahead < num:
                self._pipeline.schedule_run()
