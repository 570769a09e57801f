"""Loops over batches that show progress, time the wait for data and stop on SIGTERM or SIGINT between two steps.

The handlers of both signals only set ``StopRequest.requested``; ``StepLoop`` reads it after each step.
"""

import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from fastcpc import distributed
from fastcpc.data.loaders.base import Batch
from fastcpc.engine.loggers.run_log import RunLog
from fastcpc.engine.run_state import RunState


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The run stopped on a signal; its checkpoint is written.

    signum: the signal's number; the process's exit code is 128 + signum. epoch: the epoch in which the run stopped.
    """

    def __init__(self, signum: int, epoch: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} at epoch {epoch}")
        self.signum = signum
        self.epoch = epoch


class StopRequest:
    """Context in which SIGTERM and SIGINT set ``requested`` (the signal's number, else 0) and do nothing more.

    A second SIGINT raises KeyboardInterrupt at once. A SIGINT that the caller ignores (nohup, a shell's background job)
    stays ignored. Outside the main thread Python allows no handlers; signals keep their old effect there.
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


class StepLoop:
    """Iterates over the batches of a run's stages: ``train_steps`` moves the run's step, ``eval_steps`` does not."""

    def __init__(self, run_state: RunState, log: RunLog, stop: StopRequest) -> None:
        self._run_state, self._log, self._stop = run_state, log, stop
        self._stop_signal = distributed.StopSignal()

    def train_steps(
        self, title: str, batches: Iterator[Batch], total: int, num_views: int
    ) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) from the run's present step on; raise Stopped after a step when a stop is requested.

        total: steps of the whole stage. num_views: views of a sample that count as images in images_per_second. Every
        rank checks for a stop as often as the rank with the most steps: ranks may train different networks.
        """
        run_state = self._run_state
        left = total - run_state.step
        most = distributed.all_reduce_max(left)
        with self._log.stage(title, total, done=run_state.step) as bar:
            for batch in self._timed(batches):
                yield run_state.step, batch
                run_state.step += 1
                num_images = len(batch.index) * distributed.world_size()
                run_state.record["images"] += num_images * num_views
                bar.advance(num_images)
                self._check_stop()
            for _ in range(left, most):
                self._check_stop()

    def eval_steps(self, title: str, batches: Iterator[Batch], total: int) -> Iterator[Batch]:
        """Yield the batches of a stage without training; after a stop the run resumes at the start of the stage.

        total: the largest number of batches of a rank; every rank checks for a stop that often.
        """
        done = 0
        with self._log.stage(title, total) as bar:
            for batch in self._timed(batches):
                yield batch
                done += 1
                bar.advance(len(batch.index) * distributed.world_size())
                self._check_stop()
            for _ in range(done, total):
                self._check_stop()

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches; add the seconds spent waiting for them to the epoch's record."""
        record = self._run_state.record
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            record["waited"] = record.get("waited", 0.0) + time.perf_counter() - begin
            if batch is None:
                return
            yield batch

    def _check_stop(self) -> None:
        signum = self._stop_signal.agree(self._stop.requested)
        if signum:
            raise Stopped(signum, self._run_state.epoch)
