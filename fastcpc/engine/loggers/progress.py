"""Progress of a stage: a bar on a terminal, else a log line at intervals."""

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

logger = logging.getLogger("fastcpc")


class Progress:
    """Progress bars where stderr is a terminal, else a log line every ``interval`` seconds.

    bar: whether to draw a bar; None asks stderr. clock: seconds, for tests.
    """

    def __init__(
        self, interval: float = 30.0, bar: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._bar = sys.stderr.isatty() if bar is None else bar
        self._clock = clock

    def stage(self, name: str, total_steps: int, done: int = 0) -> "Stage":
        """A stage of total_steps steps, ``done`` of them finished; a context, call ``advance`` once per step."""
        return Stage(name, total_steps, done, self._interval, self._bar, self._clock)


class Stage:
    """A running stage; made by Progress.stage."""

    def __init__(
        self, name: str, total_steps: int, done: int, interval: float, bar: bool, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.total_steps = total_steps
        self.steps = self._done = done
        self.images = 0
        self._interval = interval
        self._clock = clock
        self._start = self._last = clock()
        self._bar: tqdm[Any] | None = None
        if bar:
            self._bar = tqdm(total=total_steps, initial=done, desc=name, unit="step", leave=False, dynamic_ncols=True)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, num_images: int) -> None:
        """One step of num_images images is done (or, on a GPU, queued)."""
        self.steps += 1
        self.images += num_images
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.images_per_second():.0f} img/s", refresh=False)
            self._bar.update()
            return
        now = self._clock()
        if now - self._last >= self._interval:
            self._last = now
            logger.info(self.line(now))

    def images_per_second(self) -> float:
        """Images per second since the stage began; 0 before any time has passed."""
        elapsed = self._clock() - self._start
        return self.images / elapsed if elapsed > 0 else 0.0

    def line(self, now: float) -> str:
        """The log line at a time of its clock."""
        elapsed = now - self._start
        rate = self.images / elapsed if elapsed > 0 else 0.0
        left = elapsed * (self.total_steps - self.steps) / max(self.steps - self._done, 1)
        return f"{self.name}: {self.steps}/{self.total_steps} steps, {rate:.0f} images/s, ETA {clock_text(left)}"


def clock_text(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
