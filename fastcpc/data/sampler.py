"""Makes the order of samples: lists of index tensors, on the CPU, before an epoch starts."""

import torch
from torch import Tensor


def sequential_batches(num_samples: int, batch_size: int) -> list[Tensor]:
    """Every sample once, in order. Returns int64 index tensors (B,) on the CPU; the last one may be shorter.

    num_samples: 0 or more. batch_size: 1 or more. Raises ValueError otherwise.
    """
    if num_samples < 0 or batch_size < 1:
        raise ValueError(f"num_samples must be 0 or more and batch_size 1 or more, got {num_samples} and {batch_size}")
    return _cut(torch.arange(num_samples), batch_size)


def shuffled_batches(
    index: Tensor, batch_size: int, generator: torch.Generator, num_batches: int | None = None
) -> tuple[list[Tensor], int]:
    """Full batches from a shuffled index. After each pass, the index is shuffled again.

    index: int64 (N,) on the CPU, not empty. batch_size: 1 or more. generator: on the CPU. num_batches: 0 or more; None
    takes ceil(N / batch_size), one whole pass. Returns the batches, int64 (batch_size,) each, and the number of
    entries beyond the first whole pass. Raises ValueError on an empty index or impossible sizes.
    """
    if index.ndim != 1 or not len(index):
        raise ValueError(f"index must be a vector with at least one entry, got shape {tuple(index.shape)}")
    if batch_size < 1 or (num_batches is not None and num_batches < 0):
        raise ValueError(f"batch_size must be 1 or more and num_batches 0 or more, got {batch_size} and {num_batches}")
    if num_batches is None:
        num_batches = -(-len(index) // batch_size)
    wanted = num_batches * batch_size
    passes = -(-wanted // len(index))
    if not passes:
        return [], 0
    order = torch.cat([index[torch.randperm(len(index), generator=generator)] for _ in range(passes)])
    return _cut(order[:wanted], batch_size), max(0, wanted - len(index))


def draw_pool(labels_N: Tensor, num: int, generator: torch.Generator, *, balanced: bool) -> Tensor:
    """Positions of ``num`` samples, drawn without replacement: int64 (M,) in ascending order, M of ``num`` at most.

    labels_N: int64 (N,) on the CPU. num: 1 or more. balanced: each label that occurs gives at most an equal share of
    num, rounded up. A label with fewer samples gives all of them, and no others replace them (DivideMix on Clothing1M).
    """
    if num < 1:
        raise ValueError(f"num must be 1 or more, got {num}")
    order = torch.randperm(len(labels_N), generator=generator)
    if balanced and len(order):
        counts_K = torch.bincount(labels_N)
        share = -(-num // int((counts_K > 0).sum()))
        by_label = labels_N[order].argsort(stable=True)  # keeps the drawn order within a label
        rank = torch.empty_like(order)
        rank[by_label] = torch.arange(len(order)) - (counts_K.cumsum(0) - counts_K).repeat_interleave(counts_K)
        order = order[rank < share]
    return order[:num].sort().values


def _cut(order: Tensor, batch_size: int) -> list[Tensor]:
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
