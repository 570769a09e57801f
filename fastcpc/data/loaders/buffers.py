"""Reusable memory for batches. The image loader and the decoders call it."""

import weakref

import numpy as np

from fastcpc.data.augment.normalize import PixelArray

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
