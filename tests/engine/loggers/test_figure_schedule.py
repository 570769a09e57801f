"""When figures are drawn, and that a drawing that fails costs the run nothing."""

from pathlib import Path

import numpy as np
import pytest

from fastcpc.engine.loggers.figure_schedule import FigureImages, FigureSchedule


class Drawing:
    """A plot that takes a number of seconds of its own clock."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds, self.drawn = 0.0, seconds, 0

    def __call__(self, folder: Path) -> FigureImages:
        self.now += self.seconds
        self.drawn += 1
        return {"figures/x": np.zeros((2, 2, 3), np.uint8)}


def drawn_after(every: int, seconds: float, phases: list[str]) -> list[int]:
    """Epochs of 100 seconds after which figures are drawn."""
    plot = Drawing(seconds)
    figures = FigureSchedule(plot, Path("run"), every, clock=lambda: plot.now)
    epochs = []
    for epoch, phase in enumerate(phases):
        plot.now += 100
        if figures.after_epoch({"phase": phase}):
            epochs.append(epoch)
    assert plot.drawn == len(epochs)
    return epochs


@pytest.mark.parametrize(
    ("every", "seconds", "expected"),
    [
        (1, 0.1, [2, 3, 4, 5, 6, 7, 8, 9]),
        (3, 0.1, [2, 5, 8]),
        (99, 0.1, [2]),
        (0, 0.1, []),
        (1, 8.0, [2, 3, 7]),  # 8 s are 2 % of the 408 s until epoch 3 ends, and 16 s of 816 s
    ],
)
def test_figures_are_drawn_first_and_at_every_kth_cleaning(every: int, seconds: float, expected: list[int]) -> None:
    assert drawn_after(every, seconds, ["warmup"] * 2 + ["train"] * 8) == expected


def test_last_figures_are_always_drawn_unless_off() -> None:
    for every in (0, 1):
        plot = Drawing(1000.0)
        figures = FigureSchedule(plot, Path("run"), every, clock=lambda plot=plot: plot.now)  # type: ignore[misc]
        assert len(figures.draw()) == len(figures.draw()) == every
    assert FigureSchedule(None, Path("run"), 1).draw() == {}


def test_failed_drawing_is_a_warning_and_ends_drawing(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def draw_figures(folder: Path) -> FigureImages:
        calls.append(folder)
        raise MemoryError("no room\nfor a figure")

    figures = FigureSchedule(draw_figures, Path("run"), 1)
    for _ in range(2):
        assert figures.after_epoch({"phase": "train"}) == {}
    assert figures.draw() == {}
    assert calls == [Path("run")]
    assert caplog.messages == [
        "figures cannot be drawn (MemoryError: no room for a figure); training continues without them"
    ]
