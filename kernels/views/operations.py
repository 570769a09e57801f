"""The operations of strong views in Triton, device code: one program changes one image.

Each function reads the levels of an image from ``source`` and writes the new ones to ``target``, uint8 (C, S, S) in
global memory. ``p`` holds the number of each pixel, row by row, and ``inside`` says whether the image has it. The
values are those of fastcpc/data/augment/batched_ops.py and augdmix_ops.py. The launch switches the fusion of products
and sums off, so that both round alike. Sums over an image are of whole numbers, which are exact in any order.
Operations that need numbers of the whole image pass over its tiles themselves.
"""

# mypy: ignore-errors
# (device code: Triton's own types, not Python's)

import triton
import triton.language as tl

LEVELS = tl.constexpr(256)


@triton.jit
def load_levels(source, p, inside, c, PIXELS: tl.constexpr):
    """Channel ``c`` as int32; 0 beyond the image."""
    return tl.load(source + c * PIXELS + p, mask=inside, other=0).to(tl.int32)


@triton.jit
def store_levels(target, p, inside, c, values, PIXELS: tl.constexpr):
    """Clamp float32 values to 0..255 and drop the fraction."""
    levels = tl.minimum(tl.maximum(values, 0.0), 255.0).to(tl.int32)
    tl.store(target + c * PIXELS + p, levels.to(tl.uint8), mask=inside)


@triton.jit
def grey(source, p, inside, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Brightness of each pixel as whole numbers, float32, with torchvision's weights."""
    first = load_levels(source, p, inside, 0, PIXELS).to(tl.float32)
    if CHANNELS == 1:
        return first
    green = load_levels(source, p, inside, 1, PIXELS).to(tl.float32)
    blue = load_levels(source, p, inside, 2, PIXELS).to(tl.float32)
    return tl.floor(first * 0.2989 + green * 0.587 + blue * 0.114)


@triton.jit
def nearest(where):
    """The nearest whole number as int32; of two the even one."""
    low = tl.floor(where)
    part = where - low
    whole = low.to(tl.int32)
    return tl.where((part > 0.5) | ((part == 0.5) & (whole % 2 != 0)), whole + 1, whole)


@triton.jit
def affine(source, target, row, p, inside, CHANNELS: tl.constexpr, SIZE: tl.constexpr, FILL: tl.constexpr):
    """Read each pixel at its place by the inverse map, six numbers at ``row``, in half image sizes."""
    x = (p % SIZE).to(tl.float32) - (SIZE - 1) * 0.5
    y = (p // SIZE).to(tl.float32) - (SIZE - 1) * 0.5
    at_x = tl.load(row) * x + tl.load(row + 1) * y + tl.load(row + 2)
    at_y = tl.load(row + 3) * x + tl.load(row + 4) * y + tl.load(row + 5)
    column = nearest((at_x + 1.0) * (SIZE * 0.5) - 0.5)
    line = nearest((at_y + 1.0) * (SIZE * 0.5) - 0.5)
    found = inside & (column >= 0) & (column < SIZE) & (line >= 0) & (line < SIZE)
    for c in tl.static_range(CHANNELS):
        level = tl.load(source + c * SIZE * SIZE + line * SIZE + column, mask=found, other=FILL)
        tl.store(target + c * SIZE * SIZE + p, level, mask=inside)


@triton.jit
def shear(
    source, target, row, p, inside,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, FILL: tl.constexpr, ALONG_Y: tl.constexpr,
):  # fmt: skip
    """Move lines along one axis with Pillow's bicubic kernel (a = -1); ``row`` holds pixels per pixel."""
    along = p // SIZE if ALONG_Y else p % SIZE
    across = p % SIZE if ALONG_Y else p // SIZE
    step: tl.constexpr = SIZE if ALONG_Y else 1
    place = along.to(tl.float32) + tl.load(row) * (across.to(tl.float32) + 0.5)
    before = tl.floor(place)
    part = place - before
    low = before.to(tl.int32)
    found = (place >= -0.5) & (place < SIZE - 0.5)
    line = source + p - along * step
    for c in tl.static_range(CHANNELS):
        plane = line + c * SIZE * SIZE
        a = tl.load(plane + tl.minimum(tl.maximum(low - 1, 0), SIZE - 1) * step, mask=inside, other=0).to(tl.float32)
        b = tl.load(plane + tl.minimum(tl.maximum(low, 0), SIZE - 1) * step, mask=inside, other=0).to(tl.float32)
        e = tl.load(plane + tl.minimum(tl.maximum(low + 1, 0), SIZE - 1) * step, mask=inside, other=0).to(tl.float32)
        d = tl.load(plane + tl.minimum(tl.maximum(low + 2, 0), SIZE - 1) * step, mask=inside, other=0).to(tl.float32)
        rise = b - a
        third = rise + (d - e)
        second = (rise + third) - part * third
        values = b + part * ((e - a) - part * second)
        store_levels(target, p, inside, c, tl.where(found, values, FILL * 1.0), SIZE * SIZE)


@triton.jit
def scale_levels(source, target, row, p, inside, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Brightness. ``row``: the factor."""
    factor = tl.load(row)
    for c in tl.static_range(CHANNELS):
        values = load_levels(source, p, inside, c, PIXELS).to(tl.float32) * factor
        store_levels(target, p, inside, c, values, PIXELS)


@triton.jit
def blend(source, target, row, p, inside, other, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Blend with ``other``, float32: a value per pixel, or one. ``row``: factor, 1 - factor."""
    factor = tl.load(row)
    second = other * tl.load(row + 1)
    for c in tl.static_range(CHANNELS):
        values = load_levels(source, p, inside, c, PIXELS).to(tl.float32) * factor + second
        store_levels(target, p, inside, c, values, PIXELS)


@triton.jit
def pixels_of(tile, BLOCK: tl.constexpr, PIXELS: tl.constexpr):
    """The numbers of a tile's pixels, and which of them the image has."""
    p = tile * BLOCK + tl.arange(0, BLOCK)
    return p, p < PIXELS


@triton.jit
def mean_grey(source, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr):
    """Mean brightness of the image, float32. The sum of 256 x 256 levels is exact in float32."""
    total = 0
    for tile in range(TILES):
        p, inside = pixels_of(tile, BLOCK, PIXELS)
        total += tl.sum(grey(source, p, inside, CHANNELS, PIXELS).to(tl.int32), 0)
    return tl.div_rn(total.to(tl.float32), PIXELS * 1.0)


@triton.jit
def sharpness(source, target, row, p, inside, CHANNELS: tl.constexpr, SIZE: tl.constexpr):
    """Blend with the 3x3 mean (weight 5 at the centre), except at the border. ``row``: factor, 1 - factor."""
    x = p % SIZE
    y = p // SIZE
    inner = inside & (x > 0) & (x < SIZE - 1) & (y > 0) & (y < SIZE - 1)
    weight = tl.load(row + 1)
    for c in tl.static_range(CHANNELS):
        plane = source + c * SIZE * SIZE
        centre = tl.load(plane + p, mask=inside, other=0).to(tl.int32)
        total = 4 * centre
        for dy in tl.static_range(-1, 2):
            for dx in tl.static_range(-1, 2):
                total += tl.load(plane + p + dy * SIZE + dx, mask=inner, other=0).to(tl.int32)
        smooth = ((2 * total + 13) // 26).to(tl.float32)  # a thirteenth, rounded; there are no ties
        value = centre.to(tl.float32)
        store_levels(target, p, inside, c, tl.where(inner, value + (smooth - value) * weight, value), SIZE * SIZE)


@triton.jit
def mask_levels(source, target, row, p, inside, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Posterize. ``row``: the mask, 0..255."""
    mask = tl.load(row).to(tl.int32)
    for c in tl.static_range(CHANNELS):
        levels = load_levels(source, p, inside, c, PIXELS) & mask
        tl.store(target + c * PIXELS + p, levels.to(tl.uint8), mask=inside)


@triton.jit
def invert_from(source, target, threshold, p, inside, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Invert the levels at or above a threshold: solarize, and invert with 0."""
    for c in tl.static_range(CHANNELS):
        levels = load_levels(source, p, inside, c, PIXELS)
        levels = tl.where(levels >= threshold, 255 - levels, levels)
        tl.store(target + c * PIXELS + p, levels.to(tl.uint8), mask=inside)


@triton.jit
def autocontrast(
    source, target, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr
):  # fmt: skip
    """Stretch each channel to 0..255. A channel with one value does not change."""
    for c in tl.static_range(CHANNELS):
        low = 255
        high = 0
        for tile in range(TILES):
            p, inside = pixels_of(tile, BLOCK, PIXELS)
            levels = load_levels(source, p, inside, c, PIXELS)
            low = tl.minimum(low, tl.min(tl.where(inside, levels, 255), 0))
            high = tl.maximum(high, tl.max(tl.where(inside, levels, 0), 0))
        flat = low == high
        scale = tl.where(flat, 1.0, (high - low).to(tl.float32) * (1.0 / 255.0))
        for tile in range(TILES):
            p, inside = pixels_of(tile, BLOCK, PIXELS)
            levels = load_levels(source, p, inside, c, PIXELS)
            values = (levels - tl.where(flat, 0, low)).to(tl.float32)
            store_levels(target, p, inside, c, tl.div_rn(values, tl.zeros_like(values) + scale), PIXELS)


@triton.jit
def equalize(
    source, target, table, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr
):  # fmt: skip
    """Equalize the histogram of each channel with Pillow's table. ``table``: uint8 (C, 256), written and read."""
    level = tl.arange(0, LEVELS)
    for c in tl.static_range(CHANNELS):
        histogram = tl.zeros([LEVELS], tl.int32)
        for tile in range(TILES):
            p, inside = pixels_of(tile, BLOCK, PIXELS)
            histogram += tl.histogram(load_levels(source, p, inside, c, PIXELS), LEVELS)
        histogram -= tl.where(level == 0, TILES * BLOCK - PIXELS, 0)  # beyond the image levels are 0
        brightest = tl.max(tl.where(histogram > 0, level, 0), 0)
        last = tl.sum(tl.where(level == brightest, histogram, 0), 0)
        step = (PIXELS - last) // 255
        below = tl.cumsum(histogram, 0) - histogram
        made = tl.minimum((below + step // 2) // tl.maximum(step, 1), 255)
        tl.store(table + c * LEVELS + level, tl.where(step > 0, made, level).to(tl.uint8))
    tl.debug_barrier()
    for c in tl.static_range(CHANNELS):
        for tile in range(TILES):
            p, inside = pixels_of(tile, BLOCK, PIXELS)
            levels = load_levels(source, p, inside, c, PIXELS)
            equalized = tl.load(table + c * LEVELS + levels, mask=inside, other=0)
            tl.store(target + c * PIXELS + p, equalized, mask=inside)
