"""The normalisation of pixels, (level / 255 - mean) / std, as one product and one sum.

``TensorNormaliser`` does it for batches on a device, ``Normaliser`` for crops on a CPU. DALI does it in its pipeline.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PixelArray: TypeAlias = NDArray[Any]
Scaling: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


def scaling(mean: Sequence[float], std: Sequence[float]) -> Scaling:
    """Scale and shift per channel, float32 (C,) each: level * scale + shift is the normalised value.

    mean, std: (C,), of pixels scaled to [0, 1]; std is above 0. The computation is in float64, rounded once.
    """
    deviation_C = np.array(std, np.float64)
    scale_C, shift_C = 1 / (255 * deviation_C), -np.array(mean, np.float64) / deviation_C
    return scale_C.astype(np.float32), shift_C.astype(np.float32)


class TensorNormaliser:
    """Normalises batches on their device."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> None:
        """mean, std: (C,), of pixels scaled to [0, 1]. memory_format: of the result."""
        self._memory_format = memory_format
        self.scale_C, self.shift_C = (torch.from_numpy(part_C).to(device) for part_C in scaling(mean, std))
        self._scale, self._shift = (part_C.view(1, -1, 1, 1) for part_C in (self.scale_C, self.shift_C))

    def __call__(self, images: Tensor) -> Tensor:
        """Levels (B, C, S, S) to float32."""
        return images.to(torch.float32, memory_format=self._memory_format).mul_(self._scale).add_(self._shift)


class Normaliser:
    """(level / 255 - mean) / std of red, green and blue, in float32."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], side: int) -> None:
        """mean, std: of pixels scaled to [0, 1]. side: S of the square crops, in pixels."""
        self.mean, self.std, self.side = tuple(mean), tuple(std), side
        self._scale, self._shift = (np.tile(part_C, side) for part_C in scaling(mean, std))

    def put(self, crop: PixelArray, out: PixelArray) -> None:
        """Write a crop to its place in a batch.

        crop: uint8 (S, S, 3); a negative column stride mirrors it. out: uint8 gets the values, float32 gets them
        normalised.
        """
        if crop.strides[1] < 0:
            crop = _in_memory(crop)
        target = out.reshape(self.side, -1)
        np.copyto(target, crop.reshape(self.side, -1))
        if out.dtype != np.uint8:
            target *= self._scale  # in place: from uint8, or into other memory, it is 1.6x slower (measured)
            target += self._shift


def _in_memory(crop: PixelArray) -> PixelArray:
    """A contiguous copy, channel by channel. All channels at once are 7x slower in NumPy and 3x in torch."""
    made = np.empty(crop.shape, crop.dtype)
    for channel in range(crop.shape[2]):
        made[:, :, channel] = crop[:, :, channel]
    return made
