"""Agreement of all ranks: errors, stop requests, the files to resume from, equality checks."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fastcpc.distributed.process_group import explained_errors, whole_group
from fastcpc.errors import InputError, LostContactError, RunError

T = TypeVar("T")
_KINDS: dict[str, type[InputError] | type[RunError]] = {"input": InputError, "run": RunError}


def raise_on_all_ranks(action: Callable[[], T]) -> T:
    """Run the action on every rank; if it raises InputError or RunError on any rank, raise that error on all.

    The error names the rank, unless it is rank 0. Other exceptions pass unchanged: they are bugs.
    """
    if whole_group().alone:
        return action()
    result, own = _attempt(action)
    for number, text in enumerate(_gather_texts(own)):
        if text:
            raise _read_error(text, number)
    assert result is not None
    return result[0]


def on_rank0(action: Callable[[], T]) -> T | None:
    """Run the action on rank 0 while the others wait and get None. An InputError or RunError is raised on all ranks."""
    group = whole_group()
    if group.alone:
        return action()
    result, own = _attempt(action) if group.rank == 0 else (None, "")
    text = _broadcast(own.encode()).decode()
    if text:
        raise _read_error(text, 0)
    return None if result is None else result[0]


def broadcast_files(files: Mapping[str, bytes] | None) -> dict[str, bytes] | None:
    """Rank 0's files (name -> bytes) or None, on all ranks. It pickles nothing and needs no shared disk."""
    if whole_group().alone:
        return None if files is None else dict(files)
    head = None if files is None else {name: len(data) for name, data in files.items()}
    sizes: dict[str, int] | None = json.loads(_broadcast(json.dumps(head).encode()))
    if sizes is None:
        return None
    return {name: _broadcast(files[name] if files is not None else b"") for name in sizes}


def assert_equal_on_all_ranks(what: str, *contents: Tensor | bytes) -> None:
    """RunError on all ranks if any rank's contents are not bit-identical to rank 0's."""
    if whole_group().alone:
        return
    digest = hashlib.sha256()
    for content in contents:
        data = content if isinstance(content, bytes) else _tensor_bytes(content)
        digest.update(len(data).to_bytes(8, "little") + data)
    digests = _gather_texts(digest.hexdigest())
    others = [number for number, text in enumerate(digests) if text != digests[0]]
    if others:
        named = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        raise _on_all_ranks(
            RunError(
                f"the processes disagree about {what}: rank {named} differs from rank 0; all must see the same files "
                "and run the same versions on the same kind of machine"
            )
        )


def all_reduce_max(number: int) -> int:
    """The largest of all ranks' integers."""
    group = whole_group()
    if group.alone:
        return number
    most = torch.tensor([number])
    with explained_errors():
        dist.all_reduce(most, dist.ReduceOp.MAX, group=group.control)
    return int(most)


class StopSignal:
    """Stops all ranks at the same step after a stop request on any of them.

    Each step starts an asynchronous all-reduce of the stop flag on the control group and reads the previous step's
    result. So a rank waits only for ranks that are a whole step behind, and the device never waits.
    """

    def __init__(self) -> None:
        self._reductions: Tensor | None = None
        self._work: dist.Work | None = None

    def agree(self, signum: int) -> int:
        """The largest signal number of any rank at the previous step; signum: this rank's now, 0 for none.

        All ranks must call it equally often.
        """
        group = whole_group()
        if group.alone:
            return signum
        agreed = self._result()
        self._reductions = torch.tensor([signum])
        with explained_errors():
            self._work = dist.all_reduce(self._reductions, dist.ReduceOp.MAX, group=group.control, async_op=True)
        if agreed:
            self._result()  # of the one just started: none may be pending when the process ends
        return agreed

    def _result(self) -> int:
        if self._work is None or self._reductions is None:
            return 0
        with explained_errors():
            self._work.wait()
        self._work = None
        return int(self._reductions)


def _attempt(action: Callable[[], T]) -> tuple[tuple[T] | None, str]:
    try:
        return (action(),), ""
    except LostContactError:
        raise
    except (InputError, RunError) as error:
        kind = "input" if isinstance(error, InputError) else "run"
        return None, json.dumps([kind, str(error)])


def _read_error(text: str, number: int) -> InputError | RunError:
    kind, message = json.loads(text)
    if number:
        message = "\n".join(f"rank {number}: {line}" for line in message.splitlines())
    return _on_all_ranks(_KINDS[kind](message))


def _on_all_ranks(error: InputError | RunError) -> InputError | RunError:
    """Mark an error that every rank raises, so that only rank 0 reports it."""
    error.on_all_ranks = True
    return error


def _tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _gather_texts(text: str) -> list[str]:
    group, data = whole_group(), text.encode()
    own_size = torch.tensor([len(data)])
    sizes = [torch.zeros_like(own_size) for _ in range(group.size)]
    with explained_errors():
        dist.all_gather(sizes, own_size, group=group.control)
    most = max(1, max(int(number) for number in sizes))
    padded = torch.zeros(most, dtype=torch.uint8)
    padded[: len(data)] = _as_tensor(data)
    parts = [torch.empty_like(padded) for _ in range(group.size)]
    with explained_errors():
        dist.all_gather(parts, padded, group=group.control)
    return [part[: int(count)].numpy().tobytes().decode() for part, count in zip(parts, sizes, strict=True)]


def _broadcast(data: bytes) -> bytes:
    """Rank 0's bytes, on all ranks."""
    group = whole_group()
    count = torch.tensor([len(data)])
    with explained_errors():
        dist.broadcast(count, 0, group=group.control)
        content = _as_tensor(data) if group.rank == 0 else torch.empty(int(count), dtype=torch.uint8)
        if len(content):
            dist.broadcast(content, 0, group=group.control)
    return content.numpy().tobytes()


def _as_tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8))
