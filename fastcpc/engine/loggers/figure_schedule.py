"""Schedule for drawing figures during training; failures are logged, not raised."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("fastcpc")

MOST_SHARE = 0.02  # of the time since the start that figures between the first and the last may take
FigureImages = dict[str, NDArray[np.uint8]]
DrawFigures = Callable[[Path], FigureImages]


class FigureSchedule:
    """The figures of a run's folder: after its first cleaning, then after every k-th one, and at the end.

    draw_figures: draws the run's figures so far, tag -> pixels (H, W, 3). folder: the run's. every:
    log.figures_every; 0: no figures. clock: seconds.

    A drawing is postponed while earlier ones have taken more than MOST_SHARE of the time since the start. An error in
    it becomes a warning, and no more figures are drawn.
    """

    def __init__(
        self, draw_figures: DrawFigures | None, folder: Path, every: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._draw_figures = draw_figures if every else None
        self._folder = folder
        self._every = every
        self._clock = clock
        self._start = clock()
        self._spent = 0.0
        self._cleanings = every  # since the last drawing; the first cleaning is due

    def after_epoch(self, metrics: Mapping[str, Any]) -> FigureImages:
        """Figures after an epoch, given its line of metrics.jsonl; empty when no drawing is due."""
        if metrics["phase"] != "train":
            return {}
        self._cleanings += 1
        if self._cleanings < self._every or self._spent > MOST_SHARE * (self._clock() - self._start):
            return {}
        self._cleanings = 0
        return self.draw()

    def draw(self) -> FigureImages:
        """The figures of the run so far."""
        if self._draw_figures is None:
            return {}
        begin = self._clock()
        try:
            return self._draw_figures(self._folder)
        # a figure must not end the run, whatever a library raises
        except Exception as error:
            self._draw_figures = None
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            logger.warning("figures cannot be drawn (%s); training continues without them", why)
            return {}
        finally:
            self._spent += self._clock() - begin
