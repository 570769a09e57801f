"""What all ranks must agree on: who failed, when to stop, what a checkpoint holds, that they are still the same."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fastcpc.errors import InputError, LostContactError, RunError
from fastcpc.ranks.group import everyone, watched

T = TypeVar("T")
_KINDS: dict[str, type[InputError] | type[RunError]] = {"input": InputError, "run": RunError}


def together(action: Callable[[], T]) -> T:
    """Do something on every rank; where it fails with InputError or RunError on any, it fails with that on all.

    The error names the rank, unless it is rank 0. Other exceptions pass at once: they are mistakes of ours.
    """
    if everyone().size == 1:
        return action()
    result, own = _attempt(action)
    for number, text in enumerate(_gather_texts(own)):
        if text:
            raise _read_fault(text, number)
    assert result is not None
    return result[0]


def on_first(action: Callable[[], T]) -> T | None:
    """Do something on rank 0 alone while the others wait; None there. Where it fails, it fails on all."""
    group = everyone()
    if group.size == 1:
        return action()
    result, own = _attempt(action) if group.rank == 0 else (None, "")
    text = _broadcast(own.encode()).decode()
    if text:
        raise _read_fault(text, 0)
    return None if result is None else result[0]


def share_files(files: Mapping[str, bytes] | None) -> dict[str, bytes] | None:
    """What rank 0 holds, on all ranks: names and bytes, or None. Nothing is pickled; no common disk is needed."""
    if everyone().size == 1:
        return None if files is None else dict(files)
    head = None if files is None else {name: len(data) for name, data in files.items()}
    sizes: dict[str, int] | None = json.loads(_broadcast(json.dumps(head).encode()))
    if sizes is None:
        return None
    return {name: _broadcast(files[name] if files is not None else b"") for name in sizes}


def check_same(what: str, *contents: Tensor | bytes) -> None:
    """RunError on all ranks where a rank's contents differ in a bit from those of rank 0."""
    if everyone().size == 1:
        return
    digest = hashlib.sha256()
    for content in contents:
        data = content if isinstance(content, bytes) else _tensor_bytes(content)
        digest.update(len(data).to_bytes(8, "little") + data)
    digests = _gather_texts(digest.hexdigest())
    others = [number for number, text in enumerate(digests) if text != digests[0]]
    if others:
        named = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        raise _told(
            RunError(
                f"the processes disagree about {what}: rank {named} differs from rank 0; all must see the same files "
                "and run the same versions on the same kind of machine"
            )
        )


def largest(number: int) -> int:
    """The largest of all ranks' whole numbers."""
    group = everyone()
    if group.size == 1:
        return number
    most = torch.tensor([number])
    with watched():
        dist.all_reduce(most, dist.ReduceOp.MAX, group=group.control)
    return int(most)


class StopWish:
    """Makes one rank's wish to stop all ranks' stop, at the same step.

    Each step begins a sum of the ranks' wishes on the control group and looks at that of the step before, which has
    long arrived: the host waits for nobody who is not a whole step behind, and the device for nothing.
    """

    def __init__(self) -> None:
        self._wishes: Tensor | None = None
        self._work: dist.Work | None = None

    def agree(self, signum: int) -> int:
        """signum: the signal this rank was sent, else 0. Returns the largest that any rank had at the step before.

        All ranks must call it equally often.
        """
        group = everyone()
        if group.size == 1:
            return signum
        agreed = self._arrived()
        self._wishes = torch.tensor([signum])
        with watched():
            self._work = dist.all_reduce(self._wishes, dist.ReduceOp.MAX, group=group.control, async_op=True)
        if agreed:
            self._arrived()  # the one just begun: nothing may be under way when the process ends
        return agreed

    def _arrived(self) -> int:
        if self._work is None or self._wishes is None:
            return 0
        with watched():
            self._work.wait()
        self._work = None
        return int(self._wishes)


def _attempt(action: Callable[[], T]) -> tuple[tuple[T] | None, str]:
    try:
        return (action(),), ""
    except LostContactError:
        raise
    except (InputError, RunError) as error:
        kind = "input" if isinstance(error, InputError) else "run"
        return None, json.dumps([kind, str(error)])


def _read_fault(text: str, number: int) -> InputError | RunError:
    kind, message = json.loads(text)
    if number:
        message = "\n".join(f"rank {number}: {line}" for line in message.splitlines())
    return _told(_KINDS[kind](message))


def _told(error: InputError | RunError) -> InputError | RunError:
    """Mark an error that every rank raises: rank 0 tells it for all."""
    error.on_all_ranks = True
    return error


def _tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _gather_texts(text: str) -> list[str]:
    group, data = everyone(), text.encode()
    own_size = torch.tensor([len(data)])
    sizes = [torch.zeros_like(own_size) for _ in range(group.size)]
    with watched():
        dist.all_gather(sizes, own_size, group=group.control)
    most = max(1, max(int(number) for number in sizes))
    padded = torch.zeros(most, dtype=torch.uint8)
    padded[: len(data)] = _as_tensor(data)
    parts = [torch.empty_like(padded) for _ in range(group.size)]
    with watched():
        dist.all_gather(parts, padded, group=group.control)
    return [part[: int(count)].numpy().tobytes().decode() for part, count in zip(parts, sizes, strict=True)]


def _broadcast(data: bytes) -> bytes:
    """Rank 0's bytes, on all ranks."""
    group = everyone()
    count = torch.tensor([len(data)])
    with watched():
        dist.broadcast(count, 0, group=group.control)
        content = _as_tensor(data) if group.rank == 0 else torch.empty(int(count), dtype=torch.uint8)
        if len(content):
            dist.broadcast(content, 0, group=group.control)
    return content.numpy().tobytes()


def _as_tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8))
