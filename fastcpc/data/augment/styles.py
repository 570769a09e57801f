"""Two styles of one policy: how torchvision applies its operations, and how AugDMix does (``augment.style``).

``batched`` compiles a policy with the style that it names. AugDMix (Nishi et al., CVPR 2021) uses Pillow. ``AUGDMIX``
has what differs:

- Pixels from outside the image are grey, not black.
- Shears interpolate with a bicubic kernel, not to the nearest pixel.
- Rotations turn left only.
- Translations are rounded to whole pixels. torchvision removes the fraction.
- Thresholds of solarize start from 256, not from 255.
- Contrast blends with the mean grey rounded to a level.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastcpc.data.augment.augdmix_ops import GREY
from fastcpc.data.augment.batched_ops import AFFINE_OPS, NUM_STRENGTHS, strengths
from fastcpc.data.augment.policies import SIGNED, StyleName


@dataclass(frozen=True)
class Style:
    """How the operations of a policy are applied.

    fill: level of pixels from outside the image, 0..255. signed: operations whose strength is negative with
    probability 1/2. strengths: as ``batched_ops.strengths``. groups: for operations that are not in the group of their
    name, or "affine" for geometric ones.
    """

    fill: int
    signed: frozenset[str]
    strengths: Callable[[str, float, int], tuple[float, ...]]
    groups: Mapping[str, str] = field(default_factory=dict)

    def group(self, op: str) -> str:
        """Name of the group of an operation."""
        return self.groups.get(op, "affine" if op in AFFINE_OPS else op)


def augdmix_strengths(op: str, magnitude: float, size: int) -> tuple[float, ...]:
    """As ``batched_ops.strengths``. Shears: the magnitude itself, pixels per pixel."""
    if op in ("ShearX", "ShearY"):
        first = magnitude
    elif op in ("TranslateX", "TranslateY"):  # Pillow reads the pixel at x + magnitude, torchvision at x - magnitude
        return strengths(op, float(-math.floor(magnitude + 0.5)), size)
    elif op == "Solarize":
        first = math.ceil(256 * magnitude)
    else:
        return strengths(op, magnitude, size)
    return (float(first), *(0.0,) * (NUM_STRENGTHS - 1))


TORCHVISION = Style(0, SIGNED, strengths)
AUGDMIX = Style(
    GREY,
    SIGNED - {"Rotate"},
    augdmix_strengths,
    {"ShearX": "ShearX", "ShearY": "ShearY", "Contrast": "Contrast256"},
)
STYLES: dict[StyleName, Style] = {"torchvision": TORCHVISION, "augdmix": AUGDMIX}
