"""Computes the normalisation of pixels, (level / 255 - mean) / std, as one product and one sum."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Scaling: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


def scaling(mean: Sequence[float], std: Sequence[float]) -> Scaling:
    """Scale and shift per channel, float32 (C,) each: level * scale + shift is the normalised value.

    mean, std: (C,), of pixels scaled to [0, 1]; std is above 0. The computation is in float64, rounded once.
    """
    deviation_C = np.array(std, np.float64)
    scale_C, shift_C = 1 / (255 * deviation_C), -np.array(mean, np.float64) / deviation_C
    return scale_C.astype(np.float32), shift_C.astype(np.float32)
