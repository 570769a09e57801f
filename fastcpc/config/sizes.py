"""Sizes and interpolation of image files where a setting leaves them open.

``data.resize=0``, ``data.crop=0`` and ``data.interpolation=auto`` are those that model.weights expect. A run replaces
them at its start. Without weights, and in configs of earlier versions, they have the values of this module.
"""

from fastcpc.config.sections.data import DataConfig

RESIZE, CROP = 256, 224  # pixels
AUTO, BILINEAR, BICUBIC = "auto", "bilinear", "bicubic"
INTERPOLATIONS = (BILINEAR, BICUBIC)


def resize_of(data: DataConfig) -> int:
    """Length of the shorter side before the crop, pixels."""
    return data.resize or RESIZE


def crop_of(data: DataConfig) -> int:
    """Side of the square crop that the networks get, pixels."""
    return data.crop or CROP


def interpolation_of(data: DataConfig) -> str:
    """One of INTERPOLATIONS."""
    return BILINEAR if data.interpolation == AUTO else data.interpolation
