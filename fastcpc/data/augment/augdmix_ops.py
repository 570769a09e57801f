"""The operations that AugDMix applies in another way than torchvision, for groups of images as in ``batched_ops``.

AugDMix (Nishi et al., CVPR 2021) uses Pillow. The results equal Pillow's, or differ by one level where sums round
differently. ``styles`` says which operations a style uses.
"""

import torch
from torch import Tensor

from fastcpc.data.augment.batched_ops import Operation, blend_with, mean_grey

GREY = 128  # level of pixels from outside the image


def shear_x(images: Tensor, rows: Tensor) -> Tensor:
    """Move each line of pixels along x by its height; the top stays. rows: pixels per pixel of height.

    Pillow's bicubic kernel (a = -1). Pixels from outside the image are grey.
    """
    size = images.shape[3]
    place = torch.arange(size, dtype=torch.float32, device=images.device)
    source = torch.addcmul(place, rows[:, :1, None], (place + 0.5)[:, None])  # (G, S, S)
    before = source.floor()
    part = (source - before)[:, None]
    taps = torch.arange(-1, 3, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    index = (before[:, None] + taps).clamp_(0, size - 1).to(torch.int64)[:, None]  # (G, 1, 4, S, S)
    near = images[:, :, None].expand(-1, -1, 4, -1, -1).gather(4, index.expand(-1, images.shape[1], -1, -1, -1))
    a, b, c, d = near.to(torch.float32).unbind(2)
    # The cubic by differences, as Pillow: a flat image keeps its level exactly.
    rise = b - a
    third = rise + (d - c)
    second = torch.addcmul(rise + third, part, third, value=-1)
    values = torch.addcmul(b, part, torch.addcmul(c - a, part, second, value=-1))
    inside = ((source >= -0.5) & (source < size - 0.5))[:, None]
    return torch.where(inside, values.clamp_(0, 255), float(GREY)).to(torch.uint8)


def shear_y(images: Tensor, rows: Tensor) -> Tensor:
    """As ``shear_x``, along y; the left side stays."""
    return shear_x(images.transpose(2, 3), rows).transpose(2, 3)


def contrast256(images: Tensor, rows: Tensor) -> Tensor:
    """Blend with the mean grey, rounded to one of 256 levels. rows: factor, 1 - factor."""
    return blend_with(images, mean_grey(images).add_(0.5).floor_(), rows)


AUGDMIX_OPS: dict[str, Operation] = {"ShearX": shear_x, "ShearY": shear_y, "Contrast256": contrast256}
