"""Normalisation of uint8 crops on a CPU, and reusable memory for batches.

The image loader, the decoders and ``cpu_ops`` call it.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcpc.data.augment.normalize import scaling

PixelArray = NDArray[Any]
KEPT = 24  # free arrays of one shape: four views of the batches in progress and of the one in use


class Buffers:
    """Arrays whose memory is reused when no array or tensor refers to it.

    New memory costs a page fault per 4 kB. For a batch of images this takes longer than filling it (measured).
    """

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], str], list[PixelArray]] = {}

    def take(self, shape: tuple[int, ...], dtype: str) -> PixelArray:
        """Return an array with arbitrary content.

        The caller must hold the array itself or a tensor made of it. A NumPy view alone does not keep its memory from
        reuse.
        """
        free = self._free.setdefault((shape, dtype), [])
        base = free.pop() if free else np.empty(shape, dtype)
        lent = base[...]
        weakref.finalize(lent, _give_back, free, base).atexit = False
        return lent


def _give_back(free: list[PixelArray], base: PixelArray) -> None:
    if len(free) < KEPT:
        free.append(base)


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
