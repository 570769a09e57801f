"""Makes weak and strong views of whole batches on the device.

The CPU draws all random numbers of a batch and sends them before they are used. No value is read back from the
device, so the host never waits for it. There is no loop over samples. A crop is one gather, and all geometric
operations of a step are another gather. Each other operation runs once, on the images for which it was drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcpc.data.augment.augdmix_ops import AUGDMIX_OPS
from fastcpc.data.augment.batched_ops import POINT_OPS, affine, centred_grid
from fastcpc.data.augment.policies import MAGNITUDES, StrongPolicy, WeakPolicy
from fastcpc.data.augment.styles import STYLES

CACHED = 2**20  # values in one part of a batch on a CPU; operations hold several float32 copies of a part
UNTOUCHED, MOVED = 0, 1  # group numbers; those of the other operations follow
OPERATIONS = POINT_OPS | AUGDMIX_OPS
GROUPS = ("", "affine", *OPERATIONS)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the CPU to the device without waiting for it."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class Cropper:
    """Makes the weak view: zero padding, a random crop of the original size, a random flip."""

    def __init__(self, policy: WeakPolicy, size: int, device: torch.device) -> None:
        """size: height and width of the images in pixels."""
        self.policy = policy
        self.device = device
        self._padded = size + 2 * policy.padding
        self.centre = policy.padding * self._padded + policy.padding  # corner of the crop that is the image itself
        row = torch.arange(size)[:, None] * self._padded
        column = torch.arange(size)[None, :]
        # Index of each output pixel's source in the flattened padded image, without the offset of the crop.
        self._source = torch.stack((row + column, row + column.flip(1))).view(2, size * size).to(device)

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw corners and flips. Returns int64 (2, B) on the CPU."""
        padding, padded = self.policy.padding, self._padded
        top_left_2B = torch.randint(2 * padding + 1, (2, num_images), generator=generator)
        flip_B = torch.randint(2 if self.policy.flip else 1, (num_images,), generator=generator)
        return torch.stack((top_left_2B[0] * padded + top_left_2B[1], flip_B))

    def apply(self, images: Tensor, drawn_2B: Tensor) -> Tensor:
        """Return the weak views, uint8 (B, C, H, W).

        images: uint8 (B, C, H, W). drawn_2B: the result of ``draw``, on the device.
        """
        num_images, num_channels = images.shape[:2]
        padding = self.policy.padding
        canvas = torch.nn.functional.pad(images, (padding,) * 4).view(num_images, num_channels, -1)
        source = (self._source.index_select(0, drawn_2B[1]) + drawn_2B[0, :, None])[:, None]
        return canvas.gather(2, source.expand(-1, num_channels, -1)).view_as(images)


@dataclass(frozen=True)
class StrongPlan:
    """The operations on a batch, drawn on the CPU.

    strengths: float32 (S, B, 6); the rows of step s are in the order of its groups.
    groups: for each step, the runs of images of one group, as (group, first, end).
    moves: int64 (S + 1, B), or None where no step needs an order. Row 0 is the batch order of step 0. Each next row
    gives the order of a step relative to the step before. The last row restores the original order.
    """

    strengths: Tensor
    groups: list[list[tuple[int, int, int]]]
    moves: Tensor | None


class StrongAugmenter:
    """A strong policy, compiled for one image size.

    group_T: int64 (T,), the group of each entry of the policy's table. strength_T6: float32 (T, 6). The last entry
    leaves an image unchanged.
    """

    def __init__(self, policy: StrongPolicy, size: int, device: torch.device) -> None:
        """size: height and width of the images in pixels."""
        self.policy = policy
        self.device = device
        self.style = STYLES[policy.style]
        self._grid = centred_grid(size, size, device)
        self.skips_sorting = all(self.style.group(choice.op) == "affine" for row in policy.rows for choice in row)
        self._compile(size)

    def _compile(self, size: int) -> None:
        """Make one table row per (policy row, step, sign). A last row leaves an image unchanged."""
        groups, rows, odds = [], [], []
        for policy_row in self.policy.rows:
            for choice in policy_row:
                magnitude = 0.0
                if choice.bin is not None:
                    magnitude = float(MAGNITUDES[choice.op](self.policy.num_bins, size)[choice.bin])
                odds.append(choice.probability)
                for sign in (1.0, -1.0 if choice.op in self.style.signed else 1.0):
                    groups.append(UNTOUCHED if choice.op == "Identity" else GROUPS.index(self.style.group(choice.op)))
                    rows.append(self.style.strengths(choice.op, sign * magnitude, size))
        self.group_T = torch.tensor([*groups, UNTOUCHED])
        self.strength_T6 = torch.tensor([*rows, self.style.strengths("Identity", 0.0, size)], dtype=torch.float32)
        self._odds_RC = torch.tensor(odds, dtype=torch.float32).view(len(self.policy.rows), -1)

    def draw_entries(self, num_images: int, generator: torch.Generator, part: Tensor | None = None) -> Tensor:
        """Draw the operation of each step and image as an entry of the table: int64 (S, B) in [0, T), on the CPU.

        part: int64 (P,), positions of the images to return; the result then has P columns. None returns all.
        """
        num_rows, num_columns = self._odds_RC.shape
        steps = self.policy.num_steps
        joint = self.policy.draws is None
        row_SB = torch.randint(num_rows, (1 if joint else steps, num_images), generator=generator)
        chance_2SB = torch.rand(2, steps, num_images, generator=generator)
        entry_SB = row_SB * num_columns + (torch.arange(steps)[:, None] if joint else 0)
        applied_SB = chance_2SB[0] <= self._odds_RC.view(-1)[entry_SB]
        table_SB = torch.where(applied_SB, 2 * entry_SB + (chance_2SB[1] <= 0.5), len(self.group_T) - 1)
        return table_SB if part is None else table_SB[:, part]

    def draw(self, num_images: int, generator: torch.Generator, part: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Call ``draw_entries``: groups int64 (S, B), strengths float32 (S, B, 6), on the CPU."""
        table_SB = self.draw_entries(num_images, generator, part)
        return self.group_T[table_SB], self.strength_T6[table_SB]

    def plan(self, num_images: int, generator: torch.Generator, part: Tensor | None = None) -> StrongPlan:
        """Call ``draw`` for a batch, then ``arrange``."""
        return self.arrange(*self.draw(num_images, generator, part))

    def arrange(self, group_SB: Tensor, strength_SB6: Tensor) -> StrongPlan:
        """Sort the images of each step by group, so that each group is one contiguous run."""
        steps, num_images = group_SB.shape
        if self.skips_sorting:  # an unchanged image gets the identity map, which is cheaper than sorting
            return StrongPlan(strength_SB6, [[(MOVED, 0, num_images)]] * steps, None)
        order_SB = group_SB.argsort(dim=1, stable=True)
        back_SB = order_SB.argsort(dim=1)
        moves = [order_SB[0], *(back_SB[step - 1][order_SB[step]] for step in range(1, steps)), back_SB[-1]]
        arranged = strength_SB6.gather(1, order_SB[:, :, None].expand_as(strength_SB6))
        return StrongPlan(arranged, [_runs(row_B) for row_B in group_SB], torch.stack(moves))

    def apply(self, images: Tensor, plan: StrongPlan) -> Tensor:
        """Run a plan. Returns uint8 (B, C, H, W).

        Where all operations are geometric, the result is float32 with the same whole values.
        images: uint8 (B, C, H, W), already in the order of moves[0]; they are overwritten.
        plan: its tensors are on the device.
        """
        if plan.moves is None:
            images = images.to(torch.float32)  # convert once, not at each step
        for step, runs in enumerate(plan.groups):
            if step and plan.moves is not None:
                images = images.index_select(0, plan.moves[step])
            for group, first, end in self._pieces(runs, images):
                part, rows = images[first:end], plan.strengths[step, first:end]
                if group == MOVED:
                    changed = affine(part, rows, self._grid, self.style.fill)
                else:
                    changed = OPERATIONS[GROUPS[group]](part, rows)
                if end - first == len(images):
                    images = changed
                else:
                    part.copy_(changed)
        return images if plan.moves is None else images.index_select(0, plan.moves[-1])

    def _pieces(self, runs: list[tuple[int, int, int]], images: Tensor) -> Iterator[tuple[int, int, int]]:
        """Split runs into parts that fit the cache of a CPU: twice as fast for image files, with the same values."""
        most = len(images) if self.device.type != "cpu" else max(1, CACHED // images[0].numel())
        for group, first, end in runs:
            for start in range(first, end, most):
                yield group, start, min(start + most, end)


def _runs(group_B: Tensor) -> list[tuple[int, int, int]]:
    """Return (group, first, end) of each group after sorting, except the untouched one."""
    runs, first = [], 0
    for group, count in enumerate(torch.bincount(group_B).tolist()):
        if count and group != UNTOUCHED:
            runs.append((group, first, first + count))
        first += count
    return runs
