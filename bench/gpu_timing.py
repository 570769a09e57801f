"""Time of calls on a GPU without the host's share: a filled queue, inputs in turns, kernels by the profiler.

harness.py times calls by ``QueuedTimer``; benches of kernels use ``in_turns`` and ``kernels_of``.

An event before a call on an idle device starts the clock while the host still prepares the first launch. A call of a
few launches would then be timed by its Python. ``QueuedTimer`` first occupies the device for longer than the host
needs to queue the call. A call that itself waits for the device, or queues longer than ``LONGEST``, cannot be hidden.
Its timer says so.
"""

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import torch

CYCLES_PER_SECOND = 2e9  # of a GPU's clock, at most
LONGEST = 0.02  # seconds that the device is occupied before a call, at most
MARGIN = 1.5  # ratio of the occupied time to the host's time
CACHE_BYTES = 256 * 2**20  # inputs in turns are together several times larger than any GPU's L2 cache
MOST_INPUTS = 16


class QueuedTimer:
    """Times a call by events on the current stream, behind work that occupies the device.

    device: seconds of the device per measurement. host: seconds until the host had queued the call. queued: whether the
    device began each call only after it was queued.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.device: list[float] = []
        self.host: list[float] = []
        self.queued = True
        self._wait = self._probe()

    def measure(self) -> None:
        """Call once. The measurement is dropped, and the wait doubled, if the device began before all was queued.

        Calls of a turn may depend on each other, so the next turn repeats it.
        """
        device, host, queued = self._attempt()
        if not queued and self._wait:
            self._wait = 2 * self._wait if 2 * self._wait <= LONGEST else 0.0
            return
        if not queued and self.queued:  # from here on all measurements have gaps
            self.device, self.host, self.queued = [], [], False
        self.device.append(device)
        self.host.append(host)

    def _probe(self) -> float:
        """Seconds to occupy the device: those of the host for one call and a margin; 0 if that is too long."""
        torch.cuda.synchronize()
        wait = MARGIN * _seconds(self.call)
        torch.cuda.synchronize()
        return wait if wait <= LONGEST else 0.0

    def _attempt(self) -> tuple[float, float, bool]:
        """Seconds of the device, seconds of the host, whether the call was queued before it began."""
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        if self._wait:
            torch.cuda._sleep(int(self._wait * CYCLES_PER_SECOND))
        start.record()
        host = _seconds(self.call)
        stop.record()
        queued = not start.query()
        torch.cuda.synchronize()
        return float(start.elapsed_time(stop)) / 1e3, host, queued


def in_turns(function: Callable[..., Any], inputs: Sequence[Sequence[Any]]) -> Callable[[], Any]:
    """A call of the function on the next of these arguments each time, so that its input is not in the cache."""
    turn = cycle(inputs)
    return lambda: function(*next(turn))


def copies(num_bytes: int, device: str) -> int:
    """How many inputs of this size take turns: more than the caches hold together. One on a CPU."""
    return 1 if device == "cpu" else min(max(-(-CACHE_BYTES // max(num_bytes, 1)), 2), MOST_INPUTS)


def kernels_of(call: Callable[[], Any]) -> tuple[int, float]:
    """Number of kernels of a call, and their seconds on the GPU without the gaps between them; after one warm call."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    found = [event for event in profile.events() or () if event.device_type.name == "CUDA"]
    return len(found), sum(event.time_range.elapsed_us() for event in found) / 1e6


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
