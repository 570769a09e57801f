"""Partition of samples and of global batches over the ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fastcpc.distributed.collectives import all_gather
from fastcpc.distributed.process_group import rank, world_size


def own_slice(length: int) -> Tensor:
    """Positions of this rank within a global batch of ``length``, which the number of ranks divides; int64, on the
    CPU. ValueError otherwise."""
    if length % world_size():
        raise ValueError(f"a batch of {length} cannot be shared equally by {world_size()} ranks")
    own = length // world_size()
    return torch.arange(rank() * own, (rank() + 1) * own)


@dataclass(frozen=True)
class Shard:
    """A partition of N samples over the ranks.

    num_samples: N. rows: this rank's samples, int64 (n,), in the order of its arrays. rows_of: those of every rank.
    """

    num_samples: int
    rows: Tensor
    rows_of: tuple[Tensor, ...]

    @property
    def is_whole(self) -> bool:
        """Whether this rank holds all samples, in their order."""
        return len(self.rows_of) == 1

    def positions(self) -> Tensor:
        """Each sample's position in this rank's arrays, int64 (N,) on the CPU; -1 for samples of other ranks."""
        position_N = torch.full((self.num_samples,), -1)
        position_N[self.rows] = torch.arange(len(self.rows))
        return position_N

    def gather(self, values: Tensor, purpose: str) -> Tensor:
        """Gather the ranks' values (..., n) to (..., N), in the order of samples, on every rank."""
        if self.is_whole:
            return values
        most = max(len(rows) for rows in self.rows_of)
        padded = values.new_zeros(*values.shape[:-1], most)
        padded[..., : len(self.rows)] = values
        whole = values.new_empty(*values.shape[:-1], self.num_samples)
        for rows, part in zip(self.rows_of, all_gather(padded, purpose), strict=True):
            whole[..., rows.to(values.device)] = part[..., : len(rows)]
        return whole


def whole_shard(num_samples: int) -> Shard:
    """All samples on this rank, as with one process."""
    rows = torch.arange(num_samples)
    return Shard(num_samples, rows, (rows,))


def shard_batches(batches: Sequence[Tensor], num_samples: int) -> tuple[list[Tensor], Shard, int]:
    """Distribute whole batches over the ranks, consecutive batches to one rank.

    batches: int64 (B,) each; together every sample once, or ValueError. Batches stay whole because a network's outputs
    may depend on the batch size by rounding. Returns this rank's batches, the shard of samples, and the largest number
    of batches of a rank.
    """
    bounds = [number * len(batches) // world_size() for number in range(world_size() + 1)]
    shares = [list(batches[first:end]) for first, end in pairwise(bounds)]
    nothing = torch.empty(0, dtype=torch.int64)
    rows_of = tuple(torch.cat(share) if share else nothing for share in shares)
    counts_N = torch.bincount(torch.cat(rows_of), minlength=num_samples)
    if len(counts_N) != num_samples or not bool((counts_N == 1).all()):
        raise ValueError(f"the batches do not hold each of {num_samples} samples once")
    return shares[rank()], Shard(num_samples, rows_of[rank()], rows_of), max(len(share) for share in shares)
