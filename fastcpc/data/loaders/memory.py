"""The loader for data sets that fit in device memory: it indexes uint8 pixels per batch.

``factory`` creates it. On a GPU one Triton kernel makes each view. When it is created there, the loader compares the
kernel with the operations of torch on one batch. If the views differ, it logs a warning and uses the operations. From
then on it never waits for the device.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fastcpc.data.augment import fused_check
from fastcpc.data.augment.batched import Cropper, StrongAugmenter
from fastcpc.data.augment.batched_views import BatchedViews
from fastcpc.data.augment.fused import FusedViews
from fastcpc.data.augment.normalize import TensorNormaliser
from fastcpc.data.augment.policies import StrongPolicy, WeakPolicy
from fastcpc.data.loaders.base import Batch, ViewName, check_stream
from fastcpc.data.rng import generator


class MemoryLoader:
    """Makes batches from pixels in device memory."""

    def __init__(
        self,
        pixels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        weak: WeakPolicy,
        strong: StrongPolicy | None,
        device: torch.device,
    ) -> None:
        """pixels: uint8 (N, C, S, S), square. mean, std: per channel, of pixels scaled to [0, 1].

        strong: None if no caller requests strong views. Raises ValueError for other pixels, mean or std.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3]:
            raise ValueError(f"pixels must be uint8 (N, C, S, S), got {pixels.dtype} {tuple(pixels.shape)}")
        if not len(mean) == len(std) == pixels.shape[1] or min(std) <= 0:
            raise ValueError(f"mean and std must hold {pixels.shape[1]} numbers, std above 0, got {mean} and {std}")
        self.num_samples = len(pixels)
        self.device = device
        self.pixels = pixels.to(device)
        size, self._has_strong = pixels.shape[2], strong is not None
        cropper = Cropper(weak, size, device)
        augmenter = None if strong is None else StrongAugmenter(strong, size, device)
        on_gpu = device.type == "cuda"
        problem = on_gpu and fused_check.kernel_problem(pixels.shape[1], size, weak, strong, device)
        kind = FusedViews if on_gpu and not problem else BatchedViews
        self._views = kind(self.pixels, cropper, augmenter, TensorNormaliser(mean, std, device))

    def stream(
        self,
        batches: Sequence[Tensor],
        views: Sequence[ViewName],
        seed: int,
        start: int = 0,
        part: Tensor | None = None,
    ) -> Iterator[Batch]:
        """See ``Loader.stream``. Raises ValueError for unknown views, empty batches and indices out of range."""
        check_stream(self.num_samples, batches, views, start, has_strong=self._has_strong)
        return self._serve(batches, views, seed, start, part)

    def _serve(
        self, batches: Sequence[Tensor], views: Sequence[ViewName], seed: int, start: int, part: Tensor | None
    ) -> Iterator[Batch]:
        for number in range(start, len(batches)):
            whole = batches[number]
            index = whole if part is None else whole[part]
            yield Batch(*self._views.make(index, views, len(whole), part, generator(seed, number)))
