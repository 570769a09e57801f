"""The loop over batches of a stage: progress, waiting time, and stops between any two steps.

SIGTERM and SIGINT request a stop. The ranks agree on it after each step, so that all stop at the same one.
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


class Stopped(Exception):  # noqa: N818 (not an error)
    """The run stopped after a signal. Its checkpoint is written; nothing is lost.

    signum: the signal's number; the process's exit code is 128 + signum. epoch: the unfinished epoch.
    """

    def __init__(self, signum: int, epoch: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} at epoch {epoch}")
        self.signum = signum
        self.epoch = epoch


class StopRequest:
    """Context in which SIGTERM and SIGINT only set ``requested`` (the signal's number, else 0).

    A second SIGINT raises KeyboardInterrupt at once, as Python does by default. A SIGINT that the caller ignores
    (nohup, a background job of a shell) stays ignored. Outside the main thread Python allows no handlers, and signals
    keep their previous effect.
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
    """Yields the batches of a stage. Between any two it shows progress, counts waiting time and checks for a stop."""

    def __init__(self, run_state: RunState, log: RunLog, stop: StopRequest) -> None:
        self._run_state, self._log, self._stop = run_state, log, stop
        self._stop_signal = distributed.StopSignal()

    def train_steps(
        self, title: str, batches: Iterator[Batch], total: int, *, num_views: int
    ) -> Iterator[tuple[int, Batch]]:
        """(step, batch) of a training stage, from the run's present step on; each step advances the run.

        total: steps of the whole stage. num_views: how many images a sample counts for. A stop raises Stopped after
        any step. Ranks that train another network may have more steps; a rank with fewer checks as often as they do.
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
        """Batches of a stage that changes nothing; a stop leaves the run at the start of the stage.

        total: the largest number of batches that a rank has; a rank with fewer checks for a stop as often.
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
        """The batches; the time spent waiting for them is added to the epoch's record."""
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
