"""fastcpc-train as torchrun starts it, with accidents at chosen moments; not a test itself.

    torchrun ... unlucky_train.py ACCIDENTS ARGUMENTS-OF-FASTCPC-TRAIN [then ARGUMENTS-OF-THE-NEXT-RUN ...]

ACCIDENTS: JSON list with an accident per start of the processes (by torchrun's count of restarts); null: none. An
accident is [rank, look, signal, target] and optionally a delay in seconds. When that rank (-1: any) checks for a stop
for the look-th time (it does after each step), it sends the signal. The target is the process itself ("self"),
torchrun ("parent"), or both ("node").
"""

import json
import os
import signal
import sys
import threading
import time
from functools import partial

from fastcpc import distributed
from fastcpc.cli import train
from fastcpc.cli.actions import train as action
from fastcpc.engine.step_loop import StopRequest


class UnluckyStop(StopRequest):
    """A stop request that causes an accident when it is read for the look-th time on the rank."""

    def __init__(self, rank: int, look: int, signal_name: str, target: str, delay: float = 0.0) -> None:
        super().__init__()
        self._rank, self._look, self._target, self._delay = rank, look, target, delay
        self._signal = signal.Signals[signal_name]
        self._looks = 0

    @property
    def requested(self) -> int:  # type: ignore[override]
        self._looks += 1
        if self._looks == self._look and self._rank in (-1, distributed.rank()):
            self._cause()
        return self._requested

    @requested.setter
    def requested(self, signum: int) -> None:
        self._requested = signum

    def _cause(self) -> None:
        if self._delay:  # from another thread, wherever the run is by then
            threading.Timer(self._delay, os.kill, (os.getpid(), self._signal)).start()
            return
        targets = {"self": [os.getpid()], "parent": [os.getppid()], "node": [os.getppid(), os.getpid()]}
        for process in targets[self._target]:
            os.kill(process, self._signal)
        while not self._requested:  # torchrun passes the signal to its processes after a while
            time.sleep(0.01)


def main() -> int:
    accidents = json.loads(sys.argv[1])
    start = distributed.restarts()
    accident = accidents[start] if start < len(accidents) else None
    if accident is not None:
        action.StopRequest = partial(UnluckyStop, *accident)  # type: ignore[assignment, misc]
    code, rest = 0, sys.argv[2:]
    while rest and not code:
        end = rest.index("then") if "then" in rest else len(rest)
        code, rest = train.main(rest[:end]), rest[end + 1 :]
    return code


if __name__ == "__main__":
    sys.exit(main())
