"""From crops in levels to what networks take, on a CPU; and the memory that batches lie in."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcpc.data.augment.normalize import scaling

PixelArray = NDArray[Any]
KEPT = 24  # free pieces of memory of one shape: four views of the batches under way and of the one in use


class Buffers:
    """Memory that is used again once nobody holds an array or tensor of it.

    Fresh memory costs a page fault each 4 kB: for a batch of photos that takes longer than to fill it (measured).
    """

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], str], list[PixelArray]] = {}

    def take(self, shape: tuple[int, ...], dtype: str) -> PixelArray:
        """An array with arbitrary content. What holds it must be the array itself or a tensor made of it: a view of it
        alone does not keep its memory from being used again."""
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
        """mean, std: of pixels scaled to [0, 1]. side: of the squares, pixels."""
        self.mean, self.std, self.side = tuple(mean), tuple(std), side
        self._scale, self._shift = (np.tile(part_C, side) for part_C in scaling(mean, std))

    def put(self, crop: PixelArray, out: PixelArray) -> None:
        """Write a square into its place: uint8 (S, S, 3), mirrored by its strides or not, into uint8 as it is, into
        float32 normalised."""
        if crop.strides[1] < 0:
            crop = _in_memory(crop)
        target = out.reshape(self.side, -1)
        np.copyto(target, crop.reshape(self.side, -1))
        if out.dtype != np.uint8:
            target *= self._scale  # in place: from bytes, or into other memory, it takes 1.6 times as long (measured)
            target += self._shift


def _in_memory(crop: PixelArray) -> PixelArray:
    """A copy in one piece. Channel by channel: numpy takes seven times as long for all at once, torch three times."""
    made = np.empty(crop.shape, crop.dtype)
    for channel in range(crop.shape[2]):
        made[:, :, channel] = crop[:, :, channel]
    return made
