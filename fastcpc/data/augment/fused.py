"""Makes all views of a batch on a GPU by one copy to the device and one kernel per view.

``MemoryLoader`` uses ``FusedViews`` where ``fused_check.kernel_problem`` finds no problem, else ``BatchedViews``. For
image files, ``ImageLoader`` uses ``FusedOperations`` on crops in the same way.
Both draw the same random numbers on the CPU, in the same order. So they make the same crops and apply the same
operations. The kernel reads the operation of each image by its number, so images are not sorted by operation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcpc.data.augment.batched import Cropper, StrongAugmenter, send
from fastcpc.data.augment.normalize import TensorNormaliser

try:
    from fastcpc.kernels.views import launch as launch
except ModuleNotFoundError as missing:  # PyTorch brings Triton on Linux only
    if missing.name != "triton":
        raise
    launch = None  # type: ignore[assignment]


class FusedViews:
    """The views of samples whose pixels are on the device."""

    def __init__(
        self, pixels: Tensor, cropper: Cropper, augmenter: StrongAugmenter | None, normalise: TensorNormaliser
    ) -> None:
        """pixels: uint8 (N, C, S, S) on the device. augmenter: None if no caller requests strong views."""
        self.pixels, self._cropper, self._augmenter, self._normalise = pixels, cropper, augmenter, normalise
        self._changes = None
        if augmenter is not None:
            codes_T = augmenter.group_T.to(torch.int32).to(pixels.device)
            self._changes = launch.Changes(codes_T, augmenter.strength_T6.to(pixels.device), augmenter.style.fill)

    def make(
        self, index: Tensor, views: Sequence[str], num_drawn: int, part: Tensor | None, draws: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As ``BatchedViews.make``. The views are channels_last, as the weights of networks on a GPU."""
        plans = [self._plan(view, len(index), num_drawn, part, draws) for view in views]
        rows = [index.contiguous().view(torch.int32), *(plan.to(torch.int32).reshape(-1) for plan in plans)]
        sent = send(torch.cat(rows), self.pixels.device)
        index_B, *planned = sent.split([len(row) for row in rows])
        index_B = index_B.view(torch.int64)
        return index_B, tuple(
            self._launch(index_B, flat.view(plan.shape)) for flat, plan in zip(planned, plans, strict=True)
        )

    def _plan(self, view: str, num_images: int, num_drawn: int, part: Tensor | None, draws: torch.Generator) -> Tensor:
        """int64 (2 + steps, B): corners, flips, and for a strong view the entries of the policy's table."""
        if view == "test":
            return torch.tensor([[self._cropper.centre], [0]]).expand(2, num_images)
        crops_2B = self._cropper.draw(num_drawn, draws)
        if part is not None:
            crops_2B = crops_2B[:, part]
        if view == "weak" or self._augmenter is None:
            return crops_2B
        return torch.cat((crops_2B, self._augmenter.draw_entries(num_drawn, draws, part)))

    def _launch(self, index_B: Tensor, plan: Tensor) -> Tensor:
        return launch.view(
            self.pixels, index_B, plan, self._normalise.scale_C, self._normalise.shift_C,
            self._changes if len(plan) > 2 else None, padding=self._cropper.policy.padding, channels_last=True,
        )  # fmt: skip


class FusedOperations:
    """The operations of strong views on crops, and their normalisation."""

    def __init__(self, augmenter: StrongAugmenter, normalise: TensorNormaliser) -> None:
        self._fill, self._device, self._normalise = augmenter.style.fill, augmenter.device, normalise
        self._places: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def make(self, crops: Tensor, group_SB: Tensor, strength_SB6: Tensor) -> Tensor:
        """Strong views, float32 (B, 3, S, S), channels_last; never waits for the device.

        crops: uint8 (B, S, S, 3) on the device. group_SB, strength_SB6: of ``StrongAugmenter.draw``, on the CPU.
        """
        steps, num_images = group_SB.shape
        drawn = torch.cat((group_SB.to(torch.int32).flatten(), strength_SB6.flatten().view(torch.int32)))
        codes, strengths = send(drawn, self._device).split([group_SB.numel(), strength_SB6.numel()])
        changes = launch.Changes(codes, strengths.view(torch.float32).view(-1, strength_SB6.shape[2]), self._fill)
        index_B, plan = self._plan(steps, num_images)
        return launch.view(
            crops.permute(0, 3, 1, 2), index_B, plan, self._normalise.scale_C, self._normalise.shift_C, changes,
            padding=0, channels_last=True,
        )  # fmt: skip

    def _plan(self, steps: int, num_images: int) -> tuple[Tensor, Tensor]:
        """Index and plan of whole images, each with entries of its own; batches have few sizes."""
        if (steps, num_images) not in self._places:
            entries = torch.arange(steps * num_images, dtype=torch.int32, device=self._device).view(steps, num_images)
            plan = torch.cat((torch.zeros_like(entries[:1]).expand(2, -1), entries))
            self._places[steps, num_images] = torch.arange(num_images, device=self._device), plan
        return self._places[steps, num_images]
