"""The loader for data sets that fit in device memory: it indexes uint8 pixels per batch.

``factory`` creates it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fastcpc.data.augment.batched import Cropper, StrongAugmenter, StrongPlan, send
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
        self._normalise = TensorNormaliser(mean, std, device)
        size = pixels.shape[2]
        self._cropper = Cropper(weak, size, device)
        self._augmenter = None if strong is None else StrongAugmenter(strong, size, device)

    def stream(
        self,
        batches: Sequence[Tensor],
        views: Sequence[ViewName],
        seed: int,
        start: int = 0,
        part: Tensor | None = None,
    ) -> Iterator[Batch]:
        """See ``Loader.stream``. Raises ValueError for unknown views, empty batches and indices out of range."""
        check_stream(self.num_samples, batches, views, start, has_strong=self._augmenter is not None)
        return self._serve(batches, views, seed, start, part)

    def _serve(
        self, batches: Sequence[Tensor], views: Sequence[ViewName], seed: int, start: int, part: Tensor | None
    ) -> Iterator[Batch]:
        for number in range(start, len(batches)):
            whole = batches[number]
            index = whole if part is None else whole[part]
            draws = generator(seed, number)
            made = tuple(self._normalise(self._view(view, index, len(whole), part, draws)) for view in views)
            yield Batch(send(index, self.device), made)

    def _view(
        self, view: ViewName, index: Tensor, num_drawn: int, part: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        if view == "test":
            return self.pixels.index_select(0, send(index, self.device))
        crops_2B = self._cropper.draw(num_drawn, draws)
        if part is not None:
            crops_2B = crops_2B[:, part]
        if view == "weak" or self._augmenter is None:
            return self._crop(index, crops_2B)
        plan = self._augmenter.plan(num_drawn, draws, part)
        if plan.moves is not None:  # cropping sorts the images for the first operation at no cost
            index, crops_2B = index[plan.moves[0]], crops_2B[:, plan.moves[0]]
        return self._augmenter.apply(self._crop(index, crops_2B), self._send_plan(plan))

    def _crop(self, index: Tensor, crops_2B: Tensor) -> Tensor:
        sent = send(torch.cat((index[None], crops_2B)), self.device)
        return self._cropper.apply(self.pixels.index_select(0, sent[0]), sent[1:])

    def _send_plan(self, plan: StrongPlan) -> StrongPlan:
        moves = None if plan.moves is None else send(plan.moves, self.device)
        return replace(plan, strengths=send(plan.strengths, self.device), moves=moves)
