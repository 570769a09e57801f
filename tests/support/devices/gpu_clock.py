"""The times of a GPU and its host, simulated: launches cost the host time, kernels run one after another later.

Used inside ``pretended_gpu``. Every operation on a pretended tensor is a launch of one kernel. ``time.perf_counter``
is the host's clock. Events, ``synchronize`` and ``_sleep`` of torch.cuda act on the device's queue.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from pretend_gpu import OnGpu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CYCLES_PER_SECOND = 2e9


class GpuClock(TorchDispatchMode):
    """launch: seconds of the host per launch. kernel: seconds of the device per kernel, mutable."""

    def __init__(self, launch: float, kernel: float) -> None:
        super().__init__()
        self.launch, self.kernel = launch, kernel
        self.host = 0.0  # now
        self.free = 0.0  # when the device has done all that is queued
        self.slept: list[float] = []

    def run(self, seconds: float) -> None:
        """Queue work of so many seconds."""
        self.host += self.launch
        self.free = max(self.free, self.host) + seconds

    def synchronize(self, *_: Any) -> None:
        self.host = max(self.host, self.free)

    def sleep(self, cycles: int) -> None:
        self.slept.append(cycles / CYCLES_PER_SECOND)
        self.run(self.slept[-1])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(value, OnGpu) for value in tree_leaves((args, kwargs))):
            self.run(self.kernel)
        return func(*args, **(kwargs or {}))


class Event:
    """A place in the device's queue."""

    def __init__(self, clock: GpuClock) -> None:
        self.clock, self.at = clock, 0.0

    def record(self) -> None:
        self.at = max(self.clock.free, self.clock.host)

    def query(self) -> bool:
        return self.clock.host >= self.at

    def elapsed_time(self, later: "Event") -> float:
        return (later.at - self.at) * 1e3


@contextmanager
def gpu_clock(launch: float, kernel: float) -> Iterator[GpuClock]:
    """The clock; within it torch.cuda and time.perf_counter go by it."""
    clock = GpuClock(launch, kernel)
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.cuda, "Event", lambda **_: Event(clock)))
        stack.enter_context(patch.object(torch.cuda, "synchronize", clock.synchronize))
        stack.enter_context(patch.object(torch.cuda, "_sleep", clock.sleep))
        stack.enter_context(patch.object(time, "perf_counter", lambda: clock.host))
        yield stack.enter_context(clock)
