"""Image operations on groups of uint8 images, each image with its own strength.

Each function takes images, uint8 (G, C, H, W) with C of 1 or 3, and one row of numbers per image, float32 (G, 6).
The operation defines the meaning of a row; ``strengths`` makes the rows. The results equal those of
torchvision.transforms.v2 on uint8 tensors (nearest neighbour, by default black outside the image). They may differ by
one level where float sums round differently.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NUM_STRENGTHS = 6
LEVELS = 256
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
AFFINE_OPS = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")

# An operation on a group: images uint8 (G, C, H, W), strengths float32 (G, 6) -> uint8 (G, C, H, W).
Operation = Callable[[Tensor, Tensor], Tensor]


def strengths(op: str, magnitude: float, size: int) -> tuple[float, ...]:
    """The parameters of an operation at run time, ``NUM_STRENGTHS`` numbers.

    magnitude: signed, in the unit of ``policies.MAGNITUDES``. size: height and width in pixels.
    Geometric operations: the inverse map [a, b, c, d, e, f], in half image sizes. The output pixel at (x, y) from the
    centre is read at (ax + by + c, dx + ey + f). Blends: factor and 1 - factor. Posterize: the bit mask.
    Solarize: the lowest value that is inverted.
    """
    half = 0.5 * size
    if op in AFFINE_OPS:
        turn = math.radians(magnitude) if op == "Rotate" else 0.0
        matrices = {
            "Identity": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            # ShearX keeps the top row in place, ShearY the left column.
            "ShearX": (1.0, magnitude, magnitude * half, 0.0, 1.0, 0.0),
            "ShearY": (1.0, 0.0, 0.0, magnitude, 1.0, magnitude * half),
            "TranslateX": (1.0, 0.0, -float(int(magnitude)), 0.0, 1.0, 0.0),
            "TranslateY": (1.0, 0.0, 0.0, 0.0, 1.0, -float(int(magnitude))),
            "Rotate": (math.cos(turn), -math.sin(turn), 0.0, math.sin(turn), math.cos(turn), 0.0),
        }
        return tuple(float(np.float32(entry) / np.float32(half)) for entry in matrices[op])
    if op in ("Brightness", "Color", "Contrast", "Sharpness"):
        row: tuple[float, ...] = (1.0 + magnitude, -magnitude)
    elif op == "Posterize":
        row = (float(0xFF & (0xFF << (8 - int(magnitude)))),)
    elif op == "Solarize":
        # The product is compared in float32, because 255 * 2/3 must give 170 and not slightly more.
        row = (float(math.ceil(np.float32(255.0 * magnitude))),)
    else:
        row = ()
    return row + (0.0,) * (NUM_STRENGTHS - len(row))


def centred_grid(height: int, width: int, device: torch.device) -> Tensor:
    """Positions of pixel centres relative to the image centre, float32 (2, H, W, 1): x, then y."""
    y = torch.linspace((1.0 - height) * 0.5, (height - 1.0) * 0.5, height)
    x = torch.linspace((1.0 - width) * 0.5, (width - 1.0) * 0.5, width)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows))[..., None].to(device)


def affine(images: Tensor, rows: Tensor, grid: Tensor, fill: int = 0) -> Tensor:
    """Apply all geometric operations in one gather. Images may also be float32.

    grid: the result of ``centred_grid`` for the size of the images, on their device. fill: level of pixels from
    outside the image.
    """
    along_x, along_y, shift = rows.view(-1, 1, 1, 2, 3).unbind(-1)
    # The sums are in the order in which torchvision rounds. A matrix product would use autocast or TF32.
    where = torch.addcmul(along_x * grid[0], along_y, grid[1]).add_(shift)
    levels = images.to(torch.float32)
    if fill:  # grid_sample fills with 0; differences of whole levels are exact
        levels = levels - fill
    moved = F.grid_sample(levels, where, mode="nearest", padding_mode="zeros", align_corners=False)
    return (moved.add_(fill) if fill else moved).to(images.dtype)


def _factor(rows: Tensor, column: int = 0) -> Tensor:
    return rows[:, column].view(-1, 1, 1, 1)


def _to_levels(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Brightness of each pixel as whole numbers, float32 (G, 1, H, W)."""
    if images.shape[1] == 1:
        return images.to(torch.float32)
    red, green, blue = images.unbind(1)
    grey = red * LUMA[0]
    return grey.add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).floor_().unsqueeze(1)


def brightness(images: Tensor, rows: Tensor) -> Tensor:
    """Blend with black. rows: factor, -."""
    return _to_levels(images * _factor(rows))


def color(images: Tensor, rows: Tensor) -> Tensor:
    """Blend with the grey image. Images of one channel do not change. rows: factor, 1 - factor."""
    if images.shape[1] == 1:
        return images
    return blend_with(images, _grey(images), rows)


def contrast(images: Tensor, rows: Tensor) -> Tensor:
    """Blend with the image's mean grey. rows: factor, 1 - factor."""
    return blend_with(images, mean_grey(images), rows)


def mean_grey(images: Tensor) -> Tensor:
    """Mean brightness per image, float32 (G, 1, 1, 1)."""
    return _grey(images).mean(dim=(1, 2, 3), keepdim=True)


def blend_with(images: Tensor, other: Tensor, rows: Tensor) -> Tensor:
    """Blend with ``other``, float32, of a shape that broadcasts. rows: factor, 1 - factor."""
    return _to_levels((images * _factor(rows)).add_(other * _factor(rows, 1)))


def sharpness(images: Tensor, rows: Tensor) -> Tensor:
    """Blend with the 3x3 mean (weight 5 at the centre, else 1), except at the border. rows: factor, 1 - factor."""
    height, width = images.shape[2:]
    if height <= 2 or width <= 2:
        return images
    values = images.to(torch.float32)
    columns = values[..., :-2] + values[..., 1:-1] + values[..., 2:]
    inner = values[..., 1:-1, 1:-1]
    # The sums are whole numbers, so a thirteenth rounds the same in each order of additions.
    smooth = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]
    smooth = smooth.add_(inner, alpha=4.0).div_(13.0).round_()
    inner.add_(smooth.sub_(inner).mul_(_factor(rows, 1)))
    return _to_levels(values)


def posterize(images: Tensor, rows: Tensor) -> Tensor:
    """Clear the low-order binary digits of each value. rows: mask, 0..255."""
    return images & _factor(rows).to(torch.uint8)


def solarize(images: Tensor, rows: Tensor) -> Tensor:
    """Invert the values at or above a threshold. rows: threshold, 0..255."""
    return images ^ (images >= _factor(rows).to(torch.uint8)).to(torch.uint8).neg_()  # 255 where inverted


def autocontrast(images: Tensor, rows: Tensor) -> Tensor:
    """Stretch each channel to 0..255. A channel with one value does not change. rows: -."""
    low, high = (extreme(dim=(2, 3), keepdim=True).to(torch.float32) for extreme in (images.amin, images.amax))
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1.0 / 255.0))
    return _to_levels((images.to(torch.float32) - torch.where(flat, 0.0, low)).div_(scale))


def equalize(images: Tensor, rows: Tensor) -> Tensor:
    """Equalize the histogram of each channel with Pillow's table. rows: -."""
    num_images, num_channels, height, width = images.shape
    planes = images.reshape(num_images * num_channels, height * width)
    if images.device.type == "cpu":  # fewer, smaller passes; on a GPU, bincount would wait for the device
        offset = torch.arange(len(planes), dtype=torch.int32)[:, None] * LEVELS
        pixels = offset + planes  # levels of all planes one after another
        histogram = torch.bincount(pixels.view(-1), minlength=LEVELS * len(planes)).view(-1, LEVELS)
        table = _equalizing(histogram, planes.amax(dim=1, keepdim=True).to(torch.int64), height * width)
        return table.to(torch.uint8).view(-1).index_select(0, pixels.view(-1)).view(images.shape)
    pixels = planes.to(torch.int64)
    histogram = torch.zeros(len(pixels), LEVELS, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, pixels, torch.ones_like(pixels))
    table = _equalizing(histogram, pixels.amax(dim=1, keepdim=True), height * width)
    return table.gather(1, pixels).to(torch.uint8).view(images.shape)


def _equalizing(histogram: Tensor, brightest: Tensor, num_pixels: int) -> Tensor:
    """Pillow's table per plane, int64 (P, 256). histogram: int64 (P, 256). brightest: the last filled bin (P, 1)."""
    step = (num_pixels - histogram.gather(1, brightest)).div_(255, rounding_mode="floor")
    below = histogram.cumsum(1).sub_(histogram)
    table = below.add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    return torch.where(step > 0, table, torch.arange(LEVELS, device=histogram.device))


def invert(images: Tensor, rows: Tensor) -> Tensor:
    """Swap black and white. rows: -."""
    return ~images


POINT_OPS: dict[str, Operation] = {
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Invert": invert,
}
