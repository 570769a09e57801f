"""One view of a batch in one launch of Triton, device code: a program makes one image.

The program reads its sample from the uint8 pixels of the whole data set, with the crop and the flip in the addresses.
Strong views write the crop to a scratch buffer of the program. Each operation reads one half of the buffer and writes
the other half. A barrier separates the two, because operations read pixels that other threads wrote. At the end the
levels are normalised and written. Weak views need neither operations nor the buffer. A program passes over the pixels
of a large image tile by tile; up to 64 x 64 pixels are one tile.
"""

# mypy: ignore-errors
# (device code: Triton's own types, not Python's)

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

from .operations import (
    affine,
    autocontrast,
    blend,
    equalize,
    grey,
    invert_from,
    load_levels,
    mask_levels,
    mean_grey,
    pixels_of,
    scale_levels,
    sharpness,
    shear,
)

# Codes of the operations are positions in this tuple. "" leaves an image unchanged.
OPERATIONS = (
    "", "affine", "Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
    "Invert", "ShearX", "ShearY", "Contrast256",
)  # fmt: skip
NUM_STRENGTHS = 6  # numbers per row of the strengths
TABLE = 256  # levels of a channel, bytes of its table in the scratch buffer
# Places that depend on the batch: an alignment that changes would compile the kernel again in the middle of a run.
ANYWHERE = ["pixels_ptr", "index_ptr", "plan_ptr", "code_ptr", "strength_ptr", "scale_ptr", "shift_ptr"]


@triton.jit
def _change(
    code, row, source, target, table,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, FILL: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Apply one operation by its code; each is one branch, the same for all threads."""
    PIXELS: tl.constexpr = SIZE * SIZE
    if code == 8:
        autocontrast(source, target, CHANNELS, PIXELS, BLOCK, TILES)
    elif code == 9:
        equalize(source, target, table, CHANNELS, PIXELS, BLOCK, TILES)
    else:
        mean = 0.0
        if (code == 4) | (code == 13):
            mean = mean_grey(source, CHANNELS, PIXELS, BLOCK, TILES)
            mean = tl.where(code == 13, tl.floor(mean + 0.5), mean)
        for tile in range(TILES):
            p, inside = pixels_of(tile, BLOCK, PIXELS)
            _change_tile(code, row, source, target, mean, p, inside, SIZE, CHANNELS, FILL)


@triton.jit
def _change_tile(
    code, row, source, target, mean, p, inside, SIZE: tl.constexpr, CHANNELS: tl.constexpr, FILL: tl.constexpr
):  # fmt: skip
    """Apply an operation to some pixels. mean: brightness of the image, where the operation needs it."""
    PIXELS: tl.constexpr = SIZE * SIZE
    if code == 1:
        affine(source, target, row, p, inside, CHANNELS, SIZE, FILL)
    elif code == 2:
        scale_levels(source, target, row, p, inside, CHANNELS, PIXELS)
    elif code == 3:
        blend(source, target, row, p, inside, grey(source, p, inside, CHANNELS, PIXELS), CHANNELS, PIXELS)
    elif (code == 4) | (code == 13):
        blend(source, target, row, p, inside, mean, CHANNELS, PIXELS)
    elif code == 5:
        sharpness(source, target, row, p, inside, CHANNELS, SIZE)
    elif code == 6:
        mask_levels(source, target, row, p, inside, CHANNELS, PIXELS)
    elif code == 7:
        invert_from(source, target, tl.load(row).to(tl.int32) & 255, p, inside, CHANNELS, PIXELS)
    elif code == 10:
        invert_from(source, target, 0, p, inside, CHANNELS, PIXELS)
    elif code == 11:
        shear(source, target, row, p, inside, CHANNELS, SIZE, FILL, False)
    elif code == 12:
        shear(source, target, row, p, inside, CHANNELS, SIZE, FILL, True)


@triton.jit
def _write(
    out, levels, scale_ptr, shift_ptr, p, inside, c, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, LAST: tl.constexpr
):  # fmt: skip
    """Normalise a channel in float32, and write it in the type of ``out``."""
    value = levels.to(tl.float32) * tl.load(scale_ptr + c) + tl.load(shift_ptr + c)
    place = p * CHANNELS + c if LAST else c * PIXELS + p
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_images"], do_not_specialize_on_alignment=ANYWHERE)
def view_kernel(
    pixels_ptr, index_ptr, plan_ptr, code_ptr, strength_ptr, scale_ptr, shift_ptr, scratch_ptr, out_ptr,
    stride_n, stride_c, stride_y, stride_x, num_images,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, PADDING: tl.constexpr, STEPS: tl.constexpr, FILL: tl.constexpr,
    LAST: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """A view of each sample of ``index_ptr``; ``launch.view`` documents the arguments."""
    PIXELS: tl.constexpr = SIZE * SIZE
    PADDED: tl.constexpr = SIZE + 2 * PADDING
    n = tl.program_id(0)
    sample = tl.load(index_ptr + n)
    corner = tl.load(plan_ptr + n)
    is_flipped = tl.load(plan_ptr + num_images + n) != 0
    pixels = pixels_ptr + sample * stride_n
    out = out_ptr + n.to(tl.int64) * (CHANNELS * PIXELS)
    halves = scratch_ptr + n.to(tl.int64) * (CHANNELS * (2 * PIXELS + TABLE_BYTES))
    for tile in range(TILES):
        p, inside = pixels_of(tile, BLOCK, PIXELS)
        x = p % SIZE
        line = corner // PADDED - PADDING + p // SIZE
        column = corner % PADDED - PADDING + tl.where(is_flipped, SIZE - 1 - x, x)
        found = inside & (line >= 0) & (line < SIZE) & (column >= 0) & (column < SIZE)
        pixel = pixels + line * stride_y + column * stride_x
        for c in tl.static_range(CHANNELS):
            levels = tl.load(pixel + c * stride_c, mask=found, other=0)
            if STEPS == 0:
                _write(out, levels, scale_ptr, shift_ptr, p, inside, c, CHANNELS, PIXELS, LAST)
            else:
                tl.store(halves + c * PIXELS + p, levels, mask=inside)
    if STEPS > 0:
        table = halves + 2 * CHANNELS * PIXELS
        tl.debug_barrier()
        half = 0
        for step in range(STEPS):
            entry = tl.load(plan_ptr + (2 + step) * num_images + n)
            code = tl.load(code_ptr + entry)
            if code != 0:
                source = halves + half * (CHANNELS * PIXELS)
                half = 1 - half
                target = halves + half * (CHANNELS * PIXELS)
                _change(code, strength_ptr + entry * ROW, source, target, table, SIZE, CHANNELS, FILL, BLOCK, TILES)
                tl.debug_barrier()
        made = halves + half * (CHANNELS * PIXELS)
        for tile in range(TILES):
            p, inside = pixels_of(tile, BLOCK, PIXELS)
            for c in tl.static_range(CHANNELS):
                levels = load_levels(made, p, inside, c, PIXELS)
                _write(out, levels, scale_ptr, shift_ptr, p, inside, c, CHANNELS, PIXELS, LAST)


TABLE_BYTES, ROW = tl.constexpr(TABLE), tl.constexpr(NUM_STRENGTHS)
INTERPRETED = isinstance(view_kernel, InterpretedFunction)  # TRITON_INTERPRET=1: Python on CPU tensors, for tests
