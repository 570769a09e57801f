"""Predictions of an exported model for image files, folders and patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fastcpc.data.image_files import HEIC_ENDINGS, IMAGE_ENDINGS, NO_HEIC, BadImage
from fastcpc.data.test_transform import InferenceTransform, center_crop_view
from fastcpc.errors import InputError
from fastcpc.report.export.ensemble import ExportedModel


@dataclass(frozen=True)
class Prediction:
    """prob_K: float32 (K,), softmax of the mean logits; None for an unreadable image, then problem gives the reason."""

    path: str
    prob_K: NDArray[np.float32] | None
    problem: str = ""


def find_images(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The image files of arguments: a file, all images below a folder, all matches of a pattern (also ``**``).

    In the order of the arguments, sorted within a folder or pattern, without repeats. Also returns a line per kind of
    file that is skipped in folders. InputError for an argument without files.
    """
    found: list[str] = []
    skipped = Skipped()
    for argument in arguments:
        if os.path.isdir(argument):
            names = _below(argument, skipped)
            if not names:
                found_instead = "".join(f"; {line}" for line in skipped.lines())
                raise InputError(f"{argument}: no images ({', '.join(IMAGE_ENDINGS)}) in this folder{found_instead}")
        elif os.path.lexists(argument):
            names = [argument]
        else:
            names = sorted(name for name in glob.glob(argument, recursive=True) if os.path.isfile(name))
            if not names:
                raise InputError(f"{argument}: no file matches this pattern")
        found += names
    return list(dict.fromkeys(found)), skipped.lines()


@dataclass
class Skipped:
    """What is not read below a folder: hidden files and folders, HEIC images, and files without an image's ending."""

    hidden: list[str] = field(default_factory=list)
    heic: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A line per kind that occurs: how many, the reason, and an example."""
        kinds = (
            (self.hidden, "hidden files or folders; name a hidden folder to read it"),
            (self.heic, f"images: {NO_HEIC}"),
            (self.other, f"files without an image's ending ({', '.join(IMAGE_ENDINGS)})"),
        )
        return [f"skipped: {len(paths):,} {reason}; such as {paths[0]}" for paths, reason in kinds if paths]


@torch.no_grad()
def predict(
    model: ExportedModel, paths: Sequence[str], device: torch.device, *, batch_size: int = 64, num_threads: int = 1
) -> Iterator[Prediction]:
    """A prediction for each file, in order; an unreadable image does not stop the others.

    batch_size, num_threads: 1 or more. The threads decode one batch at a time.
    """
    ensemble = model.ensemble().to(device)
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(paths), batch_size):
            part = paths[start : start + batch_size]
            views = list(pool.map(lambda path: _view(path, model.inputs), part))
            good = [view for view in views if isinstance(view, np.ndarray)]
            probs: Iterator[NDArray[np.float32]] = iter(())
            if good:
                pixels = torch.from_numpy(np.stack(good)).to(device).float() / 255
                probs = iter(ensemble(pixels).softmax(1).cpu().numpy())
            for path, view in zip(part, views, strict=True):
                yield Prediction(path, next(probs)) if isinstance(view, np.ndarray) else Prediction(path, None, view)


def _view(path: str, inputs: InferenceTransform) -> np.ndarray | str:
    try:
        return center_crop_view(path, inputs)
    except BadImage as problem:
        return str(problem)


def _below(folder: str, skipped: Skipped) -> list[str]:
    """Sorted paths of all images below a folder. Links to folders are followed once."""
    found: list[str] = []
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); name the folders that can")

    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        files.sort()
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        skipped.hidden += [os.path.join(place, name) for name in (*folders, *files) if name.startswith(".")]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                ending = os.path.splitext(name)[1].lower()
                kind = found if ending in IMAGE_ENDINGS else skipped.heic if ending in HEIC_ENDINGS else skipped.other
                kind.append(os.path.join(place, name))
    return sorted(found)
