"""Sums, gathers and exchanges over all ranks; with one process each is the identity and costs nothing.

What a rank sends is counted (``traffic``): payload times the factor of the usual ring, so that bytes on the wire can be
compared with a computed figure.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fastcpc.distributed.process_group import Group, current_group, explained_errors, whole_group


def bytes_sent() -> dict[str, int]:
    """Bytes this rank has sent so far, by purpose."""
    return dict(whole_group().sent)


def all_reduce_sum(tensor: Tensor, purpose: str) -> Tensor:
    """Replace a contiguous tensor by its sum over the ranks, and return it."""
    return all_reduce_async(tensor, purpose)()


def all_reduce_mean(tensor: Tensor, purpose: str) -> Tensor:
    """Replace a contiguous floating tensor by its mean over the ranks, and return it."""
    group = current_group()
    return all_reduce_sum(tensor, purpose) if group.size == 1 else all_reduce_sum(tensor, purpose).div_(group.size)


def all_reduce_async(tensor: Tensor, purpose: str) -> Callable[[], Tensor]:
    """Begin to replace a contiguous tensor by its sum over the ranks; what is returned waits and gives it."""
    group = current_group()
    if group.size == 1:
        return lambda: tensor
    count_sent(purpose, 2 * (group.size - 1) * _bytes(tensor) // group.size)
    with explained_errors():
        work = dist.all_reduce(tensor, group=_way(group, tensor), async_op=True)

    def wait() -> Tensor:
        with explained_errors():
            work.wait()
        return tensor

    return wait


def all_gather(tensor: Tensor, purpose: str) -> list[Tensor]:
    """The tensors of all ranks, by rank; of one shape and dtype on all of them."""
    group = current_group()
    if group.size == 1:
        return [tensor]
    count_sent(purpose, (group.size - 1) * _bytes(tensor))
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(group.size)]
    with explained_errors():
        dist.all_gather(parts, tensor.contiguous(), group=_way(group, tensor))
    return parts


def all_to_all_rows(
    rows: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int], purpose: str
) -> Callable[[], Tensor]:
    """Begin to send rows to each rank and to receive rows from each; what is returned waits and gives the received.

    rows: (sum of send_counts, F) contiguous, those for rank 0 first. Received rows come in the order of ranks.
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


def _way(group: Group, tensor: Tensor) -> dist.ProcessGroup | None:
    """nccl carries what lies on GPUs alone."""
    return group.control if group.backend == "nccl" and not tensor.is_cuda else group.data


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def count_sent(purpose: str, num_bytes: int) -> None:
    """Add to what this rank has sent."""
    sent = current_group().sent
    sent[purpose] = sent.get(purpose, 0) + num_bytes
