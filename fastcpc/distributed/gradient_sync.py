"""Gradients averaged over the ranks while the backward pass still runs.

Plain all-reduces of fixed buckets take the place of DistributedDataParallel, which rebuilds its buckets after the first
step of a process. With three or more ranks a resumed run would then sum in another order than an undisturbed run. With
``find_unused_parameters`` it never rebuilds them (``should_rebuild_buckets`` in torch's reducer.hpp), and is as fast:
see bench/alternatives/gradient_sync.py. But its forward pass must be one call of the whole network.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fastcpc.distributed import all_reduce_async, all_reduce_mean, has_group, world_size

BUCKET = 25 * 2**20  # bytes, as DistributedDataParallel has it: large enough for bandwidth, small enough to overlap


class GradientSync:
    """Sums each bucket of gradients as soon as all of them are there; with one process it does nothing."""

    def __init__(self, parameters: Sequence[nn.Parameter], bucket_bytes: int = BUCKET) -> None:
        self._buckets = _fill(parameters, bucket_bytes) if has_group() else []
        self._begin()
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, number))

    def finish(self) -> None:
        """After the backward pass: every gradient becomes its mean over the ranks."""
        while self._next < len(self._buckets):  # what this pass did not reach, the same on every rank
            self._launch()
        for bucket, wait in zip(self._buckets, self._waiting, strict=True):
            grads = [parameter.grad for parameter in bucket if parameter.grad is not None]
            if grads:
                mean = wait().div_(world_size())
                for grad, part in zip(grads, mean.split([grad.numel() for grad in grads]), strict=True):
                    grad.copy_(part.view_as(grad))
        self._begin()

    def _begin(self) -> None:
        self._missing = [len(bucket) for bucket in self._buckets]
        self._next = 0
        self._waiting: list[Callable[[], Tensor]] = []

    def _arrived(self, number: int, parameter: Tensor) -> None:
        self._missing[number] -= 1
        while self._next < len(self._buckets) and self._missing[self._next] == 0:
            self._launch()  # in order: ranks must begin the same sums in the same order

    def _launch(self) -> None:
        grads = [parameter.grad.reshape(-1) for parameter in self._buckets[self._next] if parameter.grad is not None]
        flat = torch.cat(grads) if grads else torch.zeros(0)
        self._waiting.append(all_reduce_async(flat, "gradients") if grads else lambda: flat)
        self._next += 1


def average_over_ranks(tensors: Sequence[Tensor], purpose: str) -> None:
    """Replace floating tensors by their means over the ranks, in one message."""
    if not has_group() or not tensors:
        return
    flat = all_reduce_mean(torch.cat([tensor.reshape(-1) for tensor in tensors]), purpose)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def _fill(parameters: Sequence[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """Parameters from the last to the first, as gradients come, in buckets of about this size."""
    buckets: list[list[nn.Parameter]] = [[]]
    filled = 0
    for parameter in reversed(parameters):
        num_bytes = parameter.numel() * parameter.element_size()
        if filled and filled + num_bytes > bucket_bytes:
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += num_bytes
    return buckets
