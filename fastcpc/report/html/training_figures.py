"""Figures for TensorBoard and W&B during training: losses with mixture, AUC, confusion, suspects."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fastcpc.data.image_files import BadImage
from fastcpc.engine.loggers.figure_schedule import FigureImages
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.engine.outputs.score_file import LAST
from fastcpc.report.html.canvas import pixels, plain_name
from fastcpc.report.html.class_figures import MOST_DRAWN, confusion_plot
from fastcpc.report.html.curves import auc_plot
from fastcpc.report.html.loss_figures import all_losses_plot
from fastcpc.report.results.images import TrainingImages
from fastcpc.report.results.run import Run, read_run
from fastcpc.report.results.samples import samples_of
from fastcpc.report.results.suspects import find_suspects

ROWS, COLUMNS = 4, 5  # images of suspects
SIDE = 160  # pixels of the longer side of each, at most
Sheet = tuple[Callable[[Figure], object], tuple[float, float]]  # a plot, and its size in units of canvas.SIZE


def run_figures(folder: Path, root: str = "") -> FigureImages:
    """The figures of a run, finished or not: tag -> pixels, uint8 (H, W, 3). fastcpc-train passes it to its log.

    folder: of the run. root: folder of the images, if not data.root. InputError where the run's files are damaged.
    """
    run = read_run(folder)
    sheets = _sheets(run, samples_of(run)[0], root)
    return {tag: pixels(plot, width=width, height=height) for tag, (plot, (width, height)) in sheets.items()}


def _sheets(run: Run, samples: SampleTable | None, root: str) -> dict[str, Sheet]:
    sheets: dict[str, Sheet] = {}
    scores = run.scores(LAST)
    losses = all_losses_plot(run, scores) if scores is not None else None
    if losses is not None:
        sheets["figures/losses"] = _panel(losses, 1.2)
    auc = auc_plot(run)
    if auc is not None:
        sheets["figures/auc"] = _panel(auc, 1.2)
    if samples is not None and len(run.class_names) <= MOST_DRAWN:
        sheets["figures/confusion"] = _panel(confusion_plot(run, samples), 1.8)
    if samples is not None:
        images = TrainingImages(run, samples, root)
        rows = find_suspects(run, samples).rows[: ROWS * COLUMNS].tolist()
        if rows and not images.problem:
            sheets["figures/suspects"] = (
                lambda sheet: _suspects(sheet, run, samples, images, rows), (1.6, 2.1),
            )  # fmt: skip
    return sheets


def _panel(plot: Callable[[Axes], None], height: float) -> Sheet:
    return (lambda sheet: plot(sheet.add_subplot())), (1.2, height)


def _suspects(sheet: Figure, run: Run, samples: SampleTable, images: TrainingImages, rows: list[int]) -> None:
    """The worst labels as thumbnails below their given and suggested class; grey where an image is unreadable."""
    ax = sheet.add_subplot()
    for place, row in enumerate(rows):
        down, across = divmod(place, COLUMNS)
        names = (run.class_names[label] for label in (samples.given_N[row], samples.predicted_N[row]))
        text = " > ".join(plain_name(name, 12) for name in names)
        ax.text(across + 0.42, down - 0.04, text, ha="center", va="bottom", fontsize=7)
        try:
            image = images.image(row).convert("RGB")
        except BadImage:
            image = Image.new("RGB", (SIDE, SIDE), "lightgrey")
        image.thumbnail((SIDE, SIDE))
        right, bottom = (0.84 * side / max(image.size) for side in image.size)
        ax.imshow(np.asarray(image), extent=(across, across + right, down + bottom, down))
    ax.set(xlim=(0, COLUMNS), ylim=(ROWS, -0.2))
    ax.axis("off")
