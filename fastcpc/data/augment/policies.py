"""Settings of the weak view, and the policies of the strong view as tables.

``MAGNITUDES`` gives the strength of an operation per bin, as torchvision does. ``batched`` and ``cpu_ops`` apply it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fastcpc.config.schema import AugmentConfig

StyleName: TypeAlias = Literal["torchvision", "augdmix"]


@dataclass(frozen=True)
class WeakPolicy:
    """Random crop of the zero-padded image, then a flip.

    flip: mirror left to right with probability 1/2. padding: black pixels added on each side before the crop.
    """

    flip: bool
    padding: int


@dataclass(frozen=True)
class Choice:
    """One operation of a policy: its name, the probability that it is applied, and the bin of its magnitude."""

    op: str
    probability: float
    bin: int | None


@dataclass(frozen=True)
class StrongPolicy:
    """The operations that turn a weak view into a strong view.

    rows: drawn uniformly; the choices of a row are applied in order. num_bins: number of bins of the magnitudes.
    draws: None draws one row per view. A number draws that many rows per view, independently, with one choice each.
    style: how the operations are applied, see ``styles``.
    """

    rows: tuple[tuple[Choice, ...], ...]
    num_bins: int
    draws: int | None = None
    style: StyleName = "torchvision"

    @property
    def num_steps(self) -> int:
        """Number of operations per view, applied in order."""
        return len(self.rows[0]) if self.draws is None else self.draws


def _linear(low: float, high: float) -> Callable[[int, int], Tensor]:
    return lambda bins, size: torch.linspace(low, high, bins)


# Strength by bin, (bins, image size in pixels) -> (bins,). Other operations have no strength.
MAGNITUDES: dict[str, Callable[[int, int], Tensor]] = {
    "ShearX": _linear(0.0, 0.3),
    "ShearY": _linear(0.0, 0.3),
    "TranslateX": lambda bins, size: torch.linspace(0.0, 150.0 / 331.0 * size, bins),
    "TranslateY": lambda bins, size: torch.linspace(0.0, 150.0 / 331.0 * size, bins),
    "Rotate": _linear(0.0, 30.0),
    "Brightness": _linear(0.0, 0.9),
    "Color": _linear(0.0, 0.9),
    "Contrast": _linear(0.0, 0.9),
    "Sharpness": _linear(0.0, 0.9),
    "Posterize": lambda bins, size: (8 - torch.arange(bins) / ((bins - 1) / 4)).round(),
    "Solarize": _linear(1.0, 0.0),
}
# Operations whose strength is negative with probability 1/2.
SIGNED = frozenset({"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}) | {
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
}

AUTOAUGMENT_BINS = 10
# The 25 sub-policies that AutoAugment found on CIFAR-10 (Cubuk et al. 2019, Tab. 7), magnitudes 0..9.
AUTOAUGMENT_CIFAR10 = (
    (Choice("Invert", 0.1, None), Choice("Contrast", 0.2, 6)),
    (Choice("Rotate", 0.7, 2), Choice("TranslateX", 0.3, 9)),
    (Choice("Sharpness", 0.8, 1), Choice("Sharpness", 0.9, 3)),
    (Choice("ShearY", 0.5, 8), Choice("TranslateY", 0.7, 9)),
    (Choice("AutoContrast", 0.5, None), Choice("Equalize", 0.9, None)),
    (Choice("ShearY", 0.2, 7), Choice("Posterize", 0.3, 7)),
    (Choice("Color", 0.4, 3), Choice("Brightness", 0.6, 7)),
    (Choice("Sharpness", 0.3, 9), Choice("Brightness", 0.7, 9)),
    (Choice("Equalize", 0.6, None), Choice("Equalize", 0.5, None)),
    (Choice("Contrast", 0.6, 7), Choice("Sharpness", 0.6, 5)),
    (Choice("Color", 0.7, 7), Choice("TranslateX", 0.5, 8)),
    (Choice("Equalize", 0.3, None), Choice("AutoContrast", 0.4, None)),
    (Choice("TranslateY", 0.4, 3), Choice("Sharpness", 0.2, 6)),
    (Choice("Brightness", 0.9, 6), Choice("Color", 0.2, 8)),
    (Choice("Solarize", 0.5, 2), Choice("Invert", 0.0, None)),
    (Choice("Equalize", 0.2, None), Choice("AutoContrast", 0.6, None)),
    (Choice("Equalize", 0.2, None), Choice("Equalize", 0.6, None)),
    (Choice("Color", 0.9, 9), Choice("Equalize", 0.6, None)),
    (Choice("AutoContrast", 0.8, None), Choice("Solarize", 0.2, 8)),
    (Choice("Brightness", 0.1, 3), Choice("Color", 0.7, 0)),
    (Choice("Solarize", 0.4, 5), Choice("AutoContrast", 0.9, None)),
    (Choice("TranslateY", 0.9, 9), Choice("TranslateY", 0.7, 9)),
    (Choice("AutoContrast", 0.9, None), Choice("Solarize", 0.8, 3)),
    (Choice("Equalize", 0.8, None), Choice("Invert", 0.1, None)),
    (Choice("TranslateY", 0.7, 9), Choice("AutoContrast", 0.9, None)),
)
# The 25 sub-policies that AutoAugment found on ImageNet (Cubuk et al. 2019, Tab. 9). Some occur twice.
AUTOAUGMENT_IMAGENET = (
    (Choice("Posterize", 0.4, 8), Choice("Rotate", 0.6, 9)),
    (Choice("Solarize", 0.6, 5), Choice("AutoContrast", 0.6, None)),
    (Choice("Equalize", 0.8, None), Choice("Equalize", 0.6, None)),
    (Choice("Posterize", 0.6, 7), Choice("Posterize", 0.6, 6)),
    (Choice("Equalize", 0.4, None), Choice("Solarize", 0.2, 4)),
    (Choice("Equalize", 0.4, None), Choice("Rotate", 0.8, 8)),
    (Choice("Solarize", 0.6, 3), Choice("Equalize", 0.6, None)),
    (Choice("Posterize", 0.8, 5), Choice("Equalize", 1.0, None)),
    (Choice("Rotate", 0.2, 3), Choice("Solarize", 0.6, 8)),
    (Choice("Equalize", 0.6, None), Choice("Posterize", 0.4, 6)),
    (Choice("Rotate", 0.8, 8), Choice("Color", 0.4, 0)),
    (Choice("Rotate", 0.4, 9), Choice("Equalize", 0.6, None)),
    (Choice("Equalize", 0.0, None), Choice("Equalize", 0.8, None)),
    (Choice("Invert", 0.6, None), Choice("Equalize", 1.0, None)),
    (Choice("Color", 0.6, 4), Choice("Contrast", 1.0, 8)),
    (Choice("Rotate", 0.8, 8), Choice("Color", 1.0, 2)),
    (Choice("Color", 0.8, 8), Choice("Solarize", 0.8, 7)),
    (Choice("Sharpness", 0.4, 7), Choice("Invert", 0.6, None)),
    (Choice("ShearX", 0.6, 5), Choice("Equalize", 1.0, None)),
    (Choice("Color", 0.4, 0), Choice("Equalize", 0.6, None)),
    (Choice("Equalize", 0.4, None), Choice("Solarize", 0.2, 4)),
    (Choice("Solarize", 0.6, 5), Choice("AutoContrast", 0.6, None)),
    (Choice("Invert", 0.6, None), Choice("Equalize", 1.0, None)),
    (Choice("Color", 0.6, 4), Choice("Contrast", 1.0, 8)),
    (Choice("Equalize", 0.8, None), Choice("Equalize", 0.6, None)),
)

RANDAUGMENT_BINS = 31
GEOMETRIC_OPS = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
RANDAUGMENT_OPS = (
    *GEOMETRIC_OPS,
    *("Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)


def strong_policy(augment: AugmentConfig, *, images: bool = False) -> StrongPolicy:
    """The policy that ``augment.strong`` names.

    autoaugment: the sub-policies of CIFAR-10, or those of ImageNet for image files.
    randaugment: ``augment.randaugment_ops`` operations, each drawn from 14 (Cubuk et al. 2020). Their bin is
    ``augment.randaugment_magnitude`` of 31.
    geometric: as randaugment, with the identity and the five operations that move pixels.
    """
    if augment.strong == "autoaugment":
        rows = AUTOAUGMENT_IMAGENET if images else AUTOAUGMENT_CIFAR10
        return StrongPolicy(rows, AUTOAUGMENT_BINS, style=augment.style)
    names = GEOMETRIC_OPS if augment.strong == "geometric" else RANDAUGMENT_OPS
    strength = augment.randaugment_magnitude
    drawn = tuple((Choice(name, 1.0, strength if name in MAGNITUDES else None),) for name in names)
    return StrongPolicy(drawn, RANDAUGMENT_BINS, augment.randaugment_ops, augment.style)
