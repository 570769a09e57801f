"""SIGTERM and SIGINT as a wish that the run obeys at its next step edge."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The run obeyed a signal: its checkpoint is written, nothing is lost.

    signum: the signal's number; the process's exit code is 128 + signum.
    epoch: the epoch the run stands in.
    """

    def __init__(self, signum: int, epoch: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} at epoch {epoch}")
        self.signum = signum
        self.epoch = epoch


class StopRequest:
    """Context in which SIGTERM and SIGINT set ``requested`` (the signal's number, else 0) and do nothing more.

    A second SIGINT takes Python's own way (KeyboardInterrupt at once). A SIGINT that the caller ignores (nohup, a
    shell's background job) stays ignored. Outside the main thread, where Python allows no handlers, signals keep their
    old effect.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.requested = signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
