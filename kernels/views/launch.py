"""Launches of the view kernel: checks of the arguments, sizes, buffers.

fastcpc/data/augment/fused.py calls ``view``, and ``unsupported_reason`` before the first batch.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .kernel import INTERPRETED, NUM_STRENGTHS, TABLE, view_kernel

MAX_SIDE = 256  # sums of its levels are exact in float32
CHANNELS = (1, 3)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MIN_BLOCK = 1024  # pixels of a program, at least: several per thread, so that no thread holds a copy of another's
MAX_BLOCK = 4096  # pixels of an image that is one tile
TILE = 2048  # pixels of a tile of larger images: more would spill
NUM_WARPS, NUM_WARPS_TILED = 8, 16  # of a program with one tile and with several
CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Changes:
    """What the entries of a plan stand for, on the device.

    codes: int32 (T,), positions in ``kernel.OPERATIONS``. strengths: float32 (T, 6), the rows of numbers that
    fastcpc/data/augment/batched_ops.py documents. fill: level of pixels from outside the image, 0..255.
    """

    codes: Tensor
    strengths: Tensor
    fill: int = 0


def view(
    pixels: Tensor,
    index: Tensor,
    plan: Tensor,
    scale: Tensor,
    shift: Tensor,
    changes: Changes | None = None,
    *,
    padding: int,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """A view of each sample of a batch in one launch; never waits for the device.

    pixels: uint8 (N, C, S, S) of any strides, C of 1 or 3, S of at most 256. index: int64 (B,) in [0, N). plan: int32
    (2 + steps, B), contiguous. Its row 0 holds the corner of each crop, row 1 is 1 where the crop is flipped. A corner
    is a place in the flattened padded image, S + 2 padding wide. The other rows hold one entry of ``changes`` per step.
    Entries, corners and index are not checked. scale, shift: float32 (C,), level * scale + shift is the result.
    changes: needed if there are steps. padding: black pixels on each side. dtype: of the result; sums are in float32.

    Returns (B, C, S, S). ValueError: a wrong shape, dtype or device.
    """
    _check(pixels, index, plan, scale, shift, changes, dtype)
    num_images, steps = len(index), len(plan) - 2
    channels, side = pixels.shape[1:3]
    form = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty((num_images, channels, side, side), dtype=dtype, device=pixels.device, memory_format=form)
    if not num_images:
        return out
    scratch = torch.empty(
        num_images * scratch_bytes(side, channels) if steps else 1, dtype=torch.uint8, device=pixels.device
    )
    codes, strengths = (plan, scale) if changes is None else (changes.codes, changes.strengths)
    with _device_of(pixels):
        view_kernel[(num_images,)](
            pixels, index, plan, codes, strengths, scale, shift, scratch, out, *pixels.stride(), num_images,
            **constants(side, channels, padding, steps, 0 if changes is None else changes.fill, channels_last),
            **options(side),
        )  # fmt: skip
    return out


def options(side: int) -> dict[str, Any]:
    """How the kernel is run. Without fusion it rounds products and sums as separate operations of torch do."""
    tiled = side * side > MAX_BLOCK
    return {"num_warps": NUM_WARPS_TILED if tiled else NUM_WARPS, "enable_fp_fusion": False}


def constants(side: int, channels: int, padding: int, steps: int, fill: int, channels_last: bool) -> dict[str, Any]:
    """What the kernel is compiled for."""
    whole = max(MIN_BLOCK, 1 << (side * side - 1).bit_length())
    block = whole if whole <= MAX_BLOCK else TILE
    return {
        "SIZE": side, "CHANNELS": channels, "PADDING": padding, "STEPS": steps, "FILL": fill if steps else 0,
        "LAST": channels_last, "BLOCK": block, "TILES": -(-side * side // block),
    }  # fmt: skip


def scratch_bytes(side: int, channels: int) -> int:
    """Of one image: two halves that change places, and a table per channel."""
    return channels * (2 * side * side + TABLE)


def unsupported_reason(channels: int, side: int, device: torch.device) -> str:
    """Why the kernel cannot make views of these images here, or nothing."""
    if device.type != "cuda" and not INTERPRETED:
        return f"tensors are on {device}, not on a CUDA device"
    if channels not in CHANNELS or side > MAX_SIDE:
        return f"images are {channels} x {side} x {side}; it takes 1 or 3 channels and up to {MAX_SIDE} pixels"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        return f"{device} has a compute capability below 8.0"
    return ""


def _check(
    pixels: Tensor,
    index: Tensor,
    plan: Tensor,
    scale: Tensor,
    shift: Tensor,
    changes: Changes | None,
    dtype: torch.dtype,
) -> None:
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3] or not len(pixels):
        raise ValueError(f"pixels: expected uint8 (N, C, S, S), got {pixels.dtype} {tuple(pixels.shape)}")
    reason = unsupported_reason(pixels.shape[1], pixels.shape[2], pixels.device)
    if reason:
        raise ValueError(f"pixels: {reason}")
    if index.dtype != torch.int64 or index.ndim != 1 or not index.is_contiguous():
        raise ValueError(f"index: expected contiguous int64 (B,), got {index.dtype} {tuple(index.shape)}")
    rows = len(plan) if plan.ndim == 2 else 0
    if plan.dtype != torch.int32 or rows < 2 or plan.shape[1] != len(index) or not plan.is_contiguous():
        raise ValueError(
            f"plan: expected contiguous int32 (2 + steps, {len(index)}), got {plan.dtype} {tuple(plan.shape)}"
        )
    for name, part in (("scale", scale), ("shift", shift)):
        if part.dtype != torch.float32 or part.shape != (pixels.shape[1],) or not part.is_contiguous():
            raise ValueError(
                f"{name}: expected contiguous float32 ({pixels.shape[1]},), got {part.dtype} {tuple(part.shape)}"
            )
    if rows > 2:
        _check_changes(changes)
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected float32, float16 or bfloat16, got {dtype}")
    parts = [index, plan, scale, shift, *((changes.codes, changes.strengths) if changes else ())]
    if any(part.device != pixels.device for part in parts):
        raise ValueError(f"all arguments: expected tensors on {pixels.device}, as pixels")


def _check_changes(changes: Changes | None) -> None:
    if changes is None:
        raise ValueError("changes: expected a table for the steps of the plan, got None")
    codes, strengths = changes.codes, changes.strengths
    if codes.dtype != torch.int32 or codes.ndim != 1 or not codes.is_contiguous():
        raise ValueError(f"changes.codes: expected contiguous int32 (T,), got {codes.dtype} {tuple(codes.shape)}")
    right = strengths.dtype == torch.float32 and strengths.shape == (len(codes), NUM_STRENGTHS)
    if not right or not strengths.is_contiguous():
        raise ValueError(
            f"changes.strengths: expected contiguous float32 ({len(codes)}, {NUM_STRENGTHS}), "
            f"got {strengths.dtype} {tuple(strengths.shape)}"
        )


def _device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
