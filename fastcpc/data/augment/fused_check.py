"""Whether the kernel of ``fused`` makes the views that the operations of torch make, on the device of a run.

The loaders ask ``kernel_problem`` when they are created, once per kind of images and policy. The check compiles the
kernel, makes one batch of views with each operation of the policy both ways, and waits for the device. Later batches
compile nothing and wait for nothing.
"""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.data.augment import fused
from fastcpc.data.augment.batched import GROUPS, Cropper, StrongAugmenter
from fastcpc.data.augment.batched_views import BatchedViews
from fastcpc.data.augment.normalize import TensorNormaliser
from fastcpc.data.augment.policies import Choice, StrongPolicy, WeakPolicy
from fastcpc.data.rng import generator

logger = logging.getLogger("fastcpc")
NUM_IMAGES = 512  # of the check: each operation, bin and sign occurs
NUM_LARGE, LARGE = 192, 64  # of the check where images have more pixels per side than this: most of them occur
ONE_LEVEL = 1.01
# Shares of an image's pixels, after a geometric operation: that equal no pixel around their place, and that rounding
# moved to the next place. A shear by half a pixel moves a whole line.
UNSURE, MOVED, MOVED_LINES = 0.02, 0.25, 2
GEOMETRIC = ("affine", "ShearX", "ShearY")


@cache
def kernel_problem(
    channels: int, size: int, weak: WeakPolicy, strong: StrongPolicy | None, device: torch.device
) -> str:
    """Why the kernel cannot make the views of such images on a GPU, or nothing. A problem is logged once."""
    try:
        problem = _unsupported(channels, size, device) or difference(channels, size, weak, strong, device)
    except Exception as error:  # the compiler, the driver: any of them leaves the operations of torch
        problem = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    if problem:
        logger.warning("views on a GPU by plain PyTorch instead of Triton: %s", problem)
    return problem


def _unsupported(channels: int, size: int, device: torch.device) -> str:
    if fused.launch is None:
        return "triton is not installed"
    return fused.launch.unsupported_reason(channels, size, device)


def difference(channels: int, size: int, weak: WeakPolicy, strong: StrongPolicy | None, device: torch.device) -> str:
    """What the kernel makes in another way than the operations of torch, or nothing."""
    pixels = example_images(channels, size).to(device)
    cropper = Cropper(weak, size, device)
    augmenter = None if strong is None else StrongAugmenter(one_by_one(strong), size, device)
    normalise = TensorNormaliser((0.0,) * channels, (1 / 255,) * channels, device)
    num_images = min(NUM_IMAGES, NUM_LARGE) if size > LARGE else NUM_IMAGES
    index, seed = torch.arange(num_images) % len(pixels), (0, "views")
    names = ("test", "weak") if augmenter is None else ("test", "weak", "strong")
    (_, made), (_, expected) = (
        kind(pixels, cropper, augmenter, normalise).make(index, names, num_images, None, generator(*seed))
        for kind in (fused.FusedViews, BatchedViews)
    )
    for name, ours, plain in zip(names[:2], made, expected, strict=False):
        if not torch.allclose(ours, plain, rtol=0, atol=1e-3):
            return f"its {name} views have other values"
    if augmenter is None:
        return ""
    draws = generator(*seed)
    cropper.draw(num_images, draws)  # of the weak view
    cropper.draw(num_images, draws)
    group_B = augmenter.group_T[augmenter.draw_entries(num_images, draws)].amax(0)
    return wrong_operation(group_B, made[2].cpu(), expected[2].cpu())


def wrong_operation(group_B: Tensor, made: Tensor, expected: Tensor) -> str:
    """The first operation whose views differ by more than rounding explains, or nothing.

    group_B: the operation of each image. made, expected: levels, float32 (B, C, S, S), on the CPU. Rounding changes a
    level by one. After a geometric operation it may also take the next pixel, for a part of the image.
    """
    geometric_B = torch.zeros(len(group_B), dtype=torch.bool)
    for name in GEOMETRIC:
        geometric_B |= group_B == GROUPS.index(name)
    differs = ((made - expected).abs() > ONE_LEVEL).any(1)
    share_B = differs.float().mean((1, 2))
    moved, size = F.pad(expected[geometric_B], (1, 1, 1, 1), mode="replicate"), expected.shape[-1]
    unlike_all = differs[geometric_B]
    for y in range(3):
        for x in range(3):
            near = moved[:, :, y : y + size, x : x + size]
            unlike_all = unlike_all & ((made[geometric_B] - near).abs() > ONE_LEVEL).any(1)
    moved_too_far_B = share_B > max(MOVED, MOVED_LINES / size)
    wrong_B = torch.where(geometric_B, moved_too_far_B, share_B > 0)
    wrong_B[geometric_B] |= unlike_all.float().mean((1, 2)) > UNSURE
    if not wrong_B.any():
        return ""
    first = int(wrong_B.nonzero()[0])
    name = GROUPS[int(group_B[first])] or "no operation"
    return f"{share_B[first]:.1%} of the pixels differ after {name}, in {int(wrong_B.sum())} of {len(made)} views"


def one_by_one(policy: StrongPolicy) -> StrongPolicy:
    """A policy of as many steps that always applies one operation of ``policy``, at any of its steps."""
    still = Choice("Identity", 1.0, None)
    kinds = dict.fromkeys((choice.op, choice.bin) for row in policy.rows for choice in row)
    steps = range(policy.num_steps)
    rows = tuple(
        tuple(Choice(op, 1.0, level) if step == place else still for step in steps)
        for op, level in kinds
        for place in steps
    )
    return StrongPolicy(rows, policy.num_bins, style=policy.style)


def example_images(channels: int, size: int) -> Tensor:
    """uint8 (8, C, S, S): noise of several contrasts, slopes, one level, and levels of 0 and 255 only."""
    noise = torch.randint(256, (8, channels, size, size), generator=generator(1, "views"))
    noise[1] //= 8
    noise[2] = 128 + noise[2] // 16
    noise[3] = torch.arange(size) * 255 // size
    noise[4] = (torch.arange(size)[:, None] * 255 // size) // torch.arange(1, channels + 1)[:, None, None]
    noise[5] = 77
    noise[6] = (noise[6] // 128) * 255
    return noise.to(torch.uint8)
