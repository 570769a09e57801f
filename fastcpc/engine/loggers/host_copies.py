"""Copies of tensors in main memory that a GPU makes while the host continues.

The trainer takes the copies, the writer thread waits for them and writes files. Later changes of a tensor do not reach
its copy. A GPU copies into pinned memory, in the order of its queue: the caller does not wait.
"""

import torch
from torch import Tensor


class HostCopies:
    """Copies of tensors on the CPU or on one GPU. Call ``wait`` after the last copy and before the first read.

    ``wait`` may be called on another thread.
    """

    def __init__(self) -> None:
        self._event: torch.cuda.Event | None = None

    def of(self, tensor: Tensor, layout: torch.memory_format = torch.preserve_format) -> Tensor:
        """A copy of a tensor, of its own elements alone; its values are there after ``wait``."""
        tensor = tensor.detach()
        # torch pins what it returns here
        copied = tensor.to("cpu", non_blocking=tensor.is_cuda, copy=True, memory_format=layout)
        self._note(tensor)
        return copied

    def _note(self, tensor: Tensor) -> None:
        if tensor.is_cuda:
            self._event = self._event or torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> None:
        """Until all copies are complete."""
        if self._event is not None:
            self._event.synchronize()


class ReusedCopies(HostCopies):
    """Copies into memory that is kept, for content of the same sizes again and again.

    New memory costs a page fault per 4 kB, and more where it is pinned. ``restart`` before the next content: its copies
    overwrite the previous ones, which must not be in use.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []
        self._used = 0

    def restart(self) -> None:
        """Reuse the memory of all copies so far, in the order in which they were taken."""
        del self._buffers[self._used :]
        self._used = 0

    def of(self, tensor: Tensor, layout: torch.memory_format = torch.preserve_format) -> Tensor:
        """A copy of a tensor, of its own elements alone; its values are there after ``wait``."""
        tensor = tensor.detach()
        form = torch.empty_like(tensor, device="meta", memory_format=layout)
        kept = self._buffers[self._used : self._used + 1]
        if not kept or _form(kept[0]) != _form(form):
            pinned = tensor.is_cuda
            kept = [torch.empty_like(tensor, device="cpu", memory_format=layout, pin_memory=pinned)]
            self._buffers[self._used : self._used + 1] = kept
        self._used += 1
        buffer = kept[0]
        buffer.copy_(tensor, non_blocking=tensor.is_cuda)
        self._note(tensor)
        return buffer


def _form(tensor: Tensor) -> tuple[torch.dtype, torch.Size, tuple[int, ...]]:
    return tensor.dtype, tensor.shape, tensor.stride()
