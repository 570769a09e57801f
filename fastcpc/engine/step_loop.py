"""Batches on their way from a feed to the networks: progress shown, waiting timed, a stop obeyed between any two."""

import time
from collections.abc import Callable, Iterator

from fastcpc import distributed
from fastcpc.data.loaders.base import Batch
from fastcpc.engine.loggers.run_log import RunLog
from fastcpc.engine.run_state import RunState
from fastcpc.engine.signals import Stopped, StopRequest

Steps = Callable[[Iterator[Batch], int], Iterator[tuple[int, Batch]]]
"""Takes a training stage's batches and their number; yields (step, batch)."""


class StepLoop:
    """Walks over batches in a run: of stages that train, whose steps move the course, and of those that only look."""

    def __init__(self, run_state: RunState, log: RunLog, stop: StopRequest) -> None:
        self._course, self._log, self._stop = run_state, log, stop
        self._stop_signal = distributed.StopSignal()

    def train(self, title: str, num_views: int) -> Steps:
        """Steps of a training stage, which begins at the course's step: the course moves with each, and a stop is
        obeyed after any of them. num_views: how many images a sample counts for.

        Ranks that train another network may have more steps: a rank asks about a stop as often as they do."""

        def steps(batches: Iterator[Batch], total: int) -> Iterator[tuple[int, Batch]]:
            run_state = self._course
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

        return steps

    def eval_steps(self, title: str, batches: Iterator[Batch], total: int) -> Iterator[Batch]:
        """Batches of a stage that changes nothing: a stop leaves the course at the stage's start.

        total: the most batches that a rank has; one with fewer asks about a stop as often as the others.
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
        """The batches; the time that is spent waiting for them goes into the epoch's record."""
        record = self._course.record
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
            raise Stopped(signum, self._course.epoch)
