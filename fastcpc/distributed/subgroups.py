"""Two halves of the ranks that train one network each (``parallel.mode=co``) and exchange the results.

The first half is ranks 0 to R/2 - 1, so that on several machines a half's messages stay within its machines. Errors,
stops and checks remain collectives of all ranks.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist

from fastcpc.distributed.collectives import count_sent
from fastcpc.distributed.process_group import (
    RankGroup,
    explained_errors,
    new_control_group,
    new_data_group,
    use_group,
    whole_group,
)


def connect_subgroups() -> None:
    """Create the groups of the two halves, after ``connect``; no effect with one process, else their number is even."""
    group = whole_group()
    if group.size == 1:
        return
    share = group.size // 2
    halves = [range(first, first + share) for first in (0, share)]
    own = subgroup_index()
    with explained_errors():
        data = [new_data_group(ranks) for ranks in halves]
        # tensors in main memory, which nccl does not transfer
        control = (
            [new_control_group(ranks) for ranks in halves] if group.backend == "nccl" and share > 1 else [None] * 2
        )
    group.half = RankGroup(
        group.rank - own * share, share, group.local_rank, control=control[own], data=data[own], backend=group.backend,
        sent=group.sent,
    )  # fmt: skip


def subgroup_index() -> int:
    """This rank's half, 0 or 1; 0 with one process, which does the work of both."""
    group = whole_group()
    return int(group.rank >= group.size // 2) if group.size > 1 else 0


def own_subgroup() -> AbstractContextManager[None]:
    """Context in which sizes, shards and collectives are those of this rank's half; of all ranks without halves."""
    own = whole_group().half
    return nullcontext() if own is None else use_group(own)


def swap_between_subgroups(data: bytes, purpose: str) -> bytes:
    """Send bytes to this rank's partner in the other half and return the partner's; every rank must call."""
    group = whole_group()
    share = group.size // 2
    partner = (group.rank + share) % group.size
    content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    count_sent(purpose, len(content))
    with explained_errors():
        sizes = _exchange(torch.tensor([len(content)]), torch.empty(1, dtype=torch.int64), partner)
        received = _exchange(content, torch.empty(int(sizes), dtype=torch.uint8), partner)
    return received.numpy().tobytes()


def _exchange(own: torch.Tensor, other: torch.Tensor, partner: int) -> torch.Tensor:
    control = whole_group().control
    works = (dist.isend(own, partner, group=control), dist.irecv(other, partner, group=control))
    for work in works:
        assert work is not None
        work.wait()
    return other
