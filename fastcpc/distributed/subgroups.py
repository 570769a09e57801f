"""The ranks in two halves that work apart for a while, and then hand each other what they have.

The first half are ranks 0 to R/2 - 1, so that on several machines a half's messages stay on its own. What everyone must
agree on (errors, stops, checks) stays everyone's.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist

from fastcpc.distributed.collectives import count_sent
from fastcpc.distributed.process_group import Group, explained_errors, new_data_group, use_group, whole_group


def connect_subgroups() -> None:
    """Part the ranks into two halves, after ``connect``; their number must be even. With one process, nothing."""
    group = whole_group()
    if group.size == 1:
        return
    share = group.size // 2
    with explained_errors():
        ways = [new_data_group(range(first, first + share)) for first in (0, share)]
    first = subgroup_index() * share
    group.half = Group(group.rank - first, share, group.local_rank, data=ways[subgroup_index()], sent=group.sent)


def subgroup_index() -> int:
    """Which half this rank is in, 0 or 1; 0 with one process, which does the work of both."""
    group = whole_group()
    return int(group.rank >= group.size // 2) if group.size > 1 else 0


def own_subgroup() -> AbstractContextManager[None]:
    """Within it, sizes, shares, sums and gathers are those of this rank's half; of everyone where nothing is parted."""
    own = whole_group().half
    return nullcontext() if own is None else use_group(own)


def swap_between_subgroups(data: bytes, purpose: str) -> bytes:
    """What this rank's partner in the other half hands over, for what is handed to it. Every rank must call."""
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
