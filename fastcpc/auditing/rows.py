"""Standardised rows of embeddings, by index: mean 0 and variance 1 in each dimension.

Small embeddings are held in float32. Larger ones are read from the array or memory map for each batch, so that no copy
of the whole file is made.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HELD_BYTES = 768 * 2**20  # of float32; above this rows are read when they are used
PIECE_BYTES = 32 * 2**20
CONSTANT = 1e-6  # a dimension whose standard deviation is a smaller share of the largest value counts as constant


class EmbeddingRows:
    """``rows(index)`` gives standardised embeddings (B, D) float32. mean_D, scale_D: float32, x -> (x - mean) * scale.

    embeddings: (N, D) NumPy array, memory map or CPU tensor. Raises ValueError at the first NaN or inf. A constant
    dimension becomes 0.
    """

    def __init__(self, embeddings: Any, *, held_bytes: int = HELD_BYTES) -> None:
        self._source = embeddings
        self.num, self.dim = map(int, embeddings.shape)
        self.held_ND: Tensor | None = None
        self.mean_D, self.scale_D = self._statistics()
        if self.num * self.dim * 4 <= held_bytes:
            held = torch.empty(self.num, self.dim)
            for start, stop in self._pieces():
                held[start:stop] = self.standardise(self._read(slice(start, stop)))
            self.held_ND = held

    def __call__(self, index: Tensor) -> Tensor:
        """Standardised rows. index: (B,) int64."""
        if self.held_ND is not None:
            return self.held_ND.index_select(0, index)  # a third of the time of held_ND[index]
        return self.standardise(self._read(index if isinstance(self._source, Tensor) else index.numpy()))

    def standardise(self, values_BD: Tensor) -> Tensor:
        """Embeddings (B, D) float32 as they are in the source -> standardised."""
        return (values_BD - self.mean_D) * self.scale_D

    def _read(self, which: "slice | Tensor | NDArray[np.int64]") -> Tensor:
        part = self._source[which]
        if isinstance(part, Tensor):
            return part.float()
        # torch converts float16 five times as fast as NumPy; float64 beyond float32 becomes inf, an error below
        return torch.from_numpy(np.array(part, dtype=part.dtype.newbyteorder("="), order="C")).float()

    def _pieces(self) -> list[tuple[int, int]]:
        size = max(1, PIECE_BYTES // (self.dim * 4))
        return [(start, min(start + size, self.num)) for start in range(0, self.num, size)]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation of each dimension; sums are about the first row, in float64."""
        shift_D = self._read(slice(0, 1))[0].nan_to_num(0.0, 0.0, 0.0).double()
        sum_D, square_D = torch.zeros(self.dim, dtype=torch.float64), torch.zeros(self.dim, dtype=torch.float64)
        largest_D = torch.zeros(self.dim)
        for start, stop in self._pieces():
            values_BD = self._read(slice(start, stop))
            finite_B = values_BD.isfinite().all(1)
            if not bool(finite_B.all()):
                row = start + int((~finite_B).nonzero()[0])
                raise ValueError(f"embeddings: NaN or inf in row {row} (as float32); remove the row or embed it again")
            largest_D = torch.maximum(largest_D, values_BD.abs().amax(0))
            centred_BD = values_BD.double() - shift_D
            sum_D += centred_BD.sum(0)
            square_D += centred_BD.square_().sum(0)
        mean_D = sum_D / self.num
        std_D = (square_D / self.num - mean_D.square()).clamp_min(0).sqrt()
        varies_D = std_D > CONSTANT * largest_D
        if not bool(varies_D.any()):
            raise ValueError("embeddings: all rows are equal; an audit needs embeddings that differ")
        scale_D = torch.where(varies_D, 1 / std_D.clamp_min(1e-30), 0.0)
        return (mean_D + shift_D).float(), scale_D.float()
