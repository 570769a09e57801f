"""The interface of loaders: sample indices in, batches of the requested views out.

``MemoryLoader`` and ``ImageLoader`` implement it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

ViewName = Literal["test", "weak", "strong"]


@dataclass(frozen=True)
class Batch:
    """Images of some samples, on the loader's device.

    index: int64 (B,). views: one float32 (B, C, H, W) per requested view, normalised. Callers look labels up by
    index, so true labels never enter a loader.
    """

    index: Tensor
    views: tuple[Tensor, ...]


class Loader(Protocol):
    """Delivers batches of one split."""

    num_samples: int

    def stream(
        self,
        batches: Sequence[Tensor],
        views: Sequence[ViewName],
        seed: int,
        start: int = 0,
        part: Tensor | None = None,
    ) -> Iterator[Batch]:
        """Deliver the batches from number ``start`` on.

        batches: int64 index tensors (B,) on the CPU, any B >= 1. views: the views of each image. A name that occurs
        twice gives two independent views. seed: batch number i draws only from ``generator(seed, i)``. So a stream
        that starts at k equals the tail of the whole stream. part: int64 (P,) on the CPU, or None for all. It holds
        the positions within each batch that this rank needs. The loader draws random numbers for the whole batch.
        So the parts of all ranks together equal the batch.
        """
        ...


def check_stream(
    num_samples: int, batches: Sequence[Tensor], views: Sequence[ViewName], start: int, *, has_strong: bool
) -> None:
    """Raise ValueError for unknown views, empty batches, and a start or indices out of range."""
    for view in views:
        if view not in get_args(ViewName) or (view == "strong" and not has_strong):
            raise ValueError(f"this loader has no {view!r} view")
    if not 0 <= start <= len(batches):
        raise ValueError(f"start must be in 0..{len(batches)}, got {start}")
    for number, index in enumerate(batches):
        if index.ndim != 1 or index.dtype != torch.int64 or not len(index):
            raise ValueError(f"batch {number} must be a filled int64 vector, got {index.dtype} {tuple(index.shape)}")
    if len(batches):
        low, high = torch.cat(list(batches)).aminmax()
        if low < 0 or high >= num_samples:
            raise ValueError(f"sample {int(low if low < 0 else high)} is outside 0..{num_samples - 1}")
