"""Random numbers by position: each draw depends on its position, never on earlier draws.

A step's augmentation, MixUp and dropout depend only on (run seed, epoch, network, step). So a resumed run draws the
same numbers as an uninterrupted run, without a saved random state.
"""

import zlib

import numpy as np
import torch


def fold(*parts: int | str) -> int:
    """Hash a position into a seed.

    parts: non-negative integers and words that name the position, for example ``fold(seed, "train", epoch, step)``.
    Returns an integer in [0, 2**63). Different positions give independent streams (NumPy's SeedSequence).
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded with ``fold(*parts)``."""
    return torch.Generator().manual_seed(fold(*parts))
