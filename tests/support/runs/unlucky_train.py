"""fastcpc-train as torchrun starts it, with accidents at chosen moments; not a test itself.

    torchrun ... unlucky_train.py ACCIDENTS ARGUMENTS-OF-FASTCPC-TRAIN

ACCIDENTS: JSON list, one for each start of the processes (by torchrun's count of restarts); null: none. An accident is
[rank, look, signal, target], and perhaps a delay in seconds: when that rank (-1: any) looks for a stop for the look-th
time (it does after each step), it sends the signal to itself ("self"), to torchrun ("parent"), or to both ("node").
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from fastcpc import distributed
from fastcpc.cli import train
from fastcpc.engine.step_loop import StepLoop


def main() -> int:
    accidents = json.loads(sys.argv[1])
    start = distributed.restarts()
    accident = accidents[start] if start < len(accidents) else None
    if accident is not None:
        plan(*accident)
    return train.main(sys.argv[2:])


def plan(rank: int, look: int, signal_name: str, target: str, delay: float = 0.0) -> None:
    honest, looks = StepLoop._check_stop, 0

    def unlucky(self: Any) -> None:
        nonlocal looks
        looks += 1
        if rank in (-1, distributed.rank()) and looks == look:
            if delay:  # from another thread, wherever the run is by then
                threading.Timer(delay, os.kill, (os.getpid(), getattr(signal, signal_name))).start()
                return honest(self)
            targets = {"self": [os.getpid()], "parent": [os.getppid()], "node": [os.getppid(), os.getpid()]}[target]
            for process in targets:
                os.kill(process, getattr(signal, signal_name))
            while not self._stop.requested:  # torchrun passes it on, in its own time
                time.sleep(0.01)
        honest(self)

    StepLoop._check_stop = unlucky  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
