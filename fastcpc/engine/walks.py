"""Batches on their way from a feed to the networks: progress shown, waiting timed, a stop obeyed between any two."""

import time
from collections.abc import Callable, Iterator

from fastcpc import ranks
from fastcpc.data.feed import Batch
from fastcpc.engine.course import Course
from fastcpc.engine.interrupt import Stopped, StopRequest
from fastcpc.engine.log import RunLog

Walk = Callable[[Iterator[Batch], int], Iterator[tuple[int, Batch]]]
"""Takes a training stage's batches and their number; yields (step, batch)."""


class Walks:
    """Walks over batches in a run: of stages that train, whose steps move the course, and of those that only look."""

    def __init__(self, course: Course, log: RunLog, stop: StopRequest) -> None:
        self._course, self._log, self._stop = course, log, stop
        self._stop_wish = ranks.StopWish()

    def train(self, title: str, num_views: int) -> Walk:
        """Steps of a training stage, which begins at the course's step: the course moves with each, and a stop is
        obeyed after any of them. num_views: how many images a sample counts for.

        Ranks that train another network may have more steps: a rank asks about a stop as often as they do."""

        def steps(batches: Iterator[Batch], total: int) -> Iterator[tuple[int, Batch]]:
            course = self._course
            left = total - course.step
            most = ranks.largest(left)
            with self._log.stage(title, total, done=course.step) as bar:
                for batch in self._fed(batches):
                    yield course.step, batch
                    course.step += 1
                    num_images = len(batch.index) * ranks.size()
                    course.record["images"] += num_images * num_views
                    bar.advance(num_images)
                    self._obey_stop()
                for _ in range(left, most):
                    self._obey_stop()

        return steps

    def watch(self, title: str, batches: Iterator[Batch], total: int) -> Iterator[Batch]:
        """Batches of a stage that changes nothing: a stop leaves the course at the stage's start.

        total: the most batches that a rank has; one with fewer asks about a stop as often as the others.
        """
        done = 0
        with self._log.stage(title, total) as bar:
            for batch in self._fed(batches):
                yield batch
                done += 1
                bar.advance(len(batch.index) * ranks.size())
                self._obey_stop()
            for _ in range(done, total):
                self._obey_stop()

    def _fed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; the time that is spent waiting for them goes into the epoch's record."""
        record = self._course.record
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            record["waited"] = record.get("waited", 0.0) + time.perf_counter() - begin
            if batch is None:
                return
            yield batch

    def _obey_stop(self) -> None:
        signum = self._stop_wish.agree(self._stop.requested)
        if signum:
            raise Stopped(signum, self._course.epoch)
