"""Makes the views of a batch by operations of torch, from uint8 pixels on the device.

``MemoryLoader`` uses ``BatchedViews`` on a CPU, and on a GPU where the kernel of ``fused`` cannot run.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fastcpc.data.augment.batched import Cropper, StrongAugmenter, StrongPlan, send
from fastcpc.data.augment.normalize import TensorNormaliser


class BatchedViews:
    """The views of samples whose pixels are on the device."""

    def __init__(
        self, pixels: Tensor, cropper: Cropper, augmenter: StrongAugmenter | None, normalise: TensorNormaliser
    ) -> None:
        """pixels: uint8 (N, C, S, S) on the device. augmenter: None if no caller requests strong views."""
        self.pixels, self._cropper, self._augmenter, self._normalise = pixels, cropper, augmenter, normalise

    def make(
        self, index: Tensor, views: Sequence[str], num_drawn: int, part: Tensor | None, draws: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Make the views of some samples. Returns the index and the views, float32 (B, C, S, S), on the device.

        index: int64 (B,) on the CPU. views: test, weak or strong. num_drawn: size of the whole batch, for which
        numbers are drawn. part: positions of ``index`` in the whole batch; None if it is the whole batch.
        """
        made = tuple(self._normalise(self._view(view, index, num_drawn, part, draws)) for view in views)
        return send(index, self.pixels.device), made

    def _view(self, view: str, index: Tensor, num_drawn: int, part: Tensor | None, draws: torch.Generator) -> Tensor:
        if view == "test":
            return self.pixels.index_select(0, send(index, self.pixels.device))
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
        sent = send(torch.cat((index[None], crops_2B)), self.pixels.device)
        return self._cropper.apply(self.pixels.index_select(0, sent[0]), sent[1:])

    def _send_plan(self, plan: StrongPlan) -> StrongPlan:
        device = self.pixels.device
        moves = None if plan.moves is None else send(plan.moves, device)
        return replace(plan, strengths=send(plan.strengths, device), moves=moves)
