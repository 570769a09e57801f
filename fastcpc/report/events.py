"""Figures of a run among its TensorBoard events: losses with their mixture, confusion, the worst labels."""

import io
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from fastcpc.data.photo_files import BadImage
from fastcpc.engine.atomic import write_failure
from fastcpc.engine.scores import LAST
from fastcpc.report.canvas import files, plain_name
from fastcpc.report.classes import MOST_DRAWN, confusion_painter
from fastcpc.report.images import Images
from fastcpc.report.losses import all_losses_painter
from fastcpc.report.run import Run, Samples
from fastcpc.report.scores import read_scores
from fastcpc.report.suspects import find_suspects

ROWS, COLUMNS = 4, 5  # pictures of the gallery


def write_events(run: Run, samples: Samples | None, root: str = "") -> list[str]:
    """Add what there is to draw to RUN/tensorboard, at the run's last finished epoch; returns the tags.

    root: where the data set lies now; empty: where the run found it. RunError where nothing can be written.
    """
    pictures = {tag: _pixels(paint, size) for tag, (paint, size) in _painters(run, samples, root).items()}
    step = run.metrics[-1]["epoch"] if run.metrics else 0
    folder = run.path / "tensorboard"
    try:
        with SummaryWriter(str(folder)) as writer:
            for tag, picture in pictures.items():
                writer.add_image(tag, picture, step, dataformats="HWC")
    except OSError as error:
        raise write_failure(error, folder, 0) from error
    return list(pictures)


def _painters(
    run: Run, samples: Samples | None, root: str
) -> dict[str, tuple[Callable[[Figure], object], tuple[float, float]]]:
    """Tag -> a painter of the figure, and its size in units of the usual one."""
    painters: dict[str, tuple[Callable[[Figure], object], tuple[float, float]]] = {}
    scores = read_scores(run, LAST)
    losses = all_losses_painter(run, scores) if scores is not None else None
    if losses is not None:
        painters["figures/losses"] = (lambda sheet: losses(sheet.add_subplot()), (1.2, 1.2))
    if samples is not None and len(run.class_names) <= MOST_DRAWN:
        confusion = confusion_painter(run, samples)
        painters["figures/confusion"] = (lambda sheet: confusion(sheet.add_subplot()), (1.2, 1.8))
    if samples is not None:
        images = Images(run, samples, root)
        rows = find_suspects(run, samples).rows[: ROWS * COLUMNS].tolist()
        if rows and not images.fault:
            painters["figures/suspects"] = (
                lambda sheet: _suspects(sheet, run, samples, images, rows), (1.6, 0.65 * ROWS),
            )  # fmt: skip
    return painters


def _suspects(sheet: Figure, run: Run, samples: Samples, images: Images, rows: list[int]) -> None:
    """The worst labels as small pictures, given and suggested class above each."""
    for place, row in enumerate(rows, start=1):
        ax = sheet.add_subplot(ROWS, COLUMNS, place)
        ax.axis("off")
        names = (run.class_names[label] for label in (samples.given_N[row], samples.predicted_N[row]))
        ax.set_title(" > ".join(plain_name(name, 12) for name in names), fontsize=7)
        try:
            picture = images.picture(row)
        except BadImage:
            continue
        picture.thumbnail((160, 160))
        ax.imshow(np.asarray(picture), cmap="gray")


def _pixels(paint: Callable[[Figure], object], size: tuple[float, float]) -> np.ndarray:
    _, png = files(paint, width=size[0], height=size[1])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
