"""Collectives over the ranks that share the present work; with one process each returns its input.

``bytes_sent`` counts what a rank sends: the payload times the factor of a ring algorithm.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fastcpc.distributed.process_group import RankGroup, current_group, explained_errors, whole_group


def bytes_sent() -> dict[str, int]:
    """Bytes this rank has sent so far, by purpose."""
    return dict(whole_group().sent)


def all_reduce_sum(tensor: Tensor, purpose: str) -> Tensor:
    """Replace a contiguous tensor by its sum over the ranks, and return it."""
    return all_reduce_async(tensor, purpose)()


def all_reduce_mean(tensor: Tensor, purpose: str) -> Tensor:
    """Replace a contiguous floating tensor by its mean over the ranks, and return it."""
    group = current_group()
    return all_reduce_sum(tensor, purpose) if group.alone else all_reduce_sum(tensor, purpose).div_(group.size)


def all_reduce_async(tensor: Tensor, purpose: str) -> Callable[[], Tensor]:
    """Start to replace a contiguous tensor by its sum over the ranks; call the result to wait for it."""
    group = current_group()
    if group.alone:
        return lambda: tensor
    count_sent(purpose, 2 * (group.size - 1) * _bytes(tensor) // group.size)
    with explained_errors():
        work = dist.all_reduce(tensor, group=_process_group(group, tensor), async_op=True)

    def wait() -> Tensor:
        with explained_errors():
            work.wait()
        return tensor

    return wait


def all_gather(tensor: Tensor, purpose: str) -> list[Tensor]:
    """The tensors of all ranks, by rank; shape and dtype must be the same on every rank."""
    group = current_group()
    if group.alone:
        return [tensor]
    count_sent(purpose, (group.size - 1) * _bytes(tensor))
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(group.size)]
    with explained_errors():
        dist.all_gather(parts, tensor.contiguous(), group=_process_group(group, tensor))
    return parts


def all_to_all_rows(
    rows: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int], purpose: str
) -> Callable[[], Tensor]:
    """Start to send rows to each rank and to receive rows from each; call the result to get the received rows.

    rows: (sum of send_counts, F) contiguous, in the order of ranks; so are the received rows.
    """
    group = current_group()
    count_sent(purpose, _bytes(rows) - send_counts[group.rank] * rows.shape[1] * rows.element_size())
    received = rows.new_empty(sum(receive_counts), rows.shape[1])
    with explained_errors():
        work = dist.all_to_all_single(
            received, rows, list(receive_counts), list(send_counts), group=group.data, async_op=True
        )

    def wait() -> Tensor:
        with explained_errors():
            work.wait()
        return received

    return wait


def _process_group(group: RankGroup, tensor: Tensor) -> dist.ProcessGroup | None:
    """The group for a tensor: nccl transfers GPU tensors only."""
    return group.control if group.backend == "nccl" and not tensor.is_cuda else group.data


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def count_sent(purpose: str, num_bytes: int) -> None:
    """Add to this rank's ``bytes_sent``."""
    sent = current_group().sent
    sent[purpose] = sent.get(purpose, 0) + num_bytes
