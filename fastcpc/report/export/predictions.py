"""Images in, classes out: files by name, folder or pattern, through a model's own test transform."""

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fastcpc.data.datasets.listing import IMAGE_ENDINGS
from fastcpc.data.loaders.image_files import BadImage
from fastcpc.data.test_transform import InferenceTransform, center_crop_view
from fastcpc.errors import InputError
from fastcpc.report.export.ensemble import ExportedModel


@dataclass(frozen=True)
class Prediction:
    """prob_K: float32 (K,), softmax of the networks' mean logits; None where the image cannot be read. problem: why."""

    path: str
    prob_K: NDArray[np.float32] | None
    problem: str = ""


def find_images(arguments: Sequence[str]) -> list[str]:
    """The files that are meant: a file as it is, every image below a folder, every match of a pattern (``**`` too).

    In the order given, sorted within a folder or pattern, each once. InputError for an argument that means no file.
    """
    found: list[str] = []
    for argument in arguments:
        if os.path.isdir(argument):
            names = _below(argument)
            if not names:
                raise InputError(f"{argument}: no images ({', '.join(IMAGE_ENDINGS)}) in this folder")
        elif os.path.lexists(argument):
            names = [argument]
        elif glob.has_magic(argument):
            names = sorted(name for name in glob.glob(argument, recursive=True) if os.path.isfile(name))
            if not names:
                raise InputError(f"{argument}: no file matches this pattern")
        else:
            raise InputError(f"{argument}: no such file or folder")
        found += names
    return list(dict.fromkeys(found))


@torch.no_grad()
def predict(
    model: ExportedModel, paths: Sequence[str], device: torch.device, *, batch_size: int = 64, num_threads: int = 1
) -> Iterator[Prediction]:
    """A prediction for each file, in order; a image that cannot be read does not stop the others.

    batch_size, num_threads: 1 or more; threads decode, one batch at a time.
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


def _below(folder: str) -> list[str]:
    names = [
        os.path.join(place, name)
        for place, _, files in os.walk(folder)
        for name in files
        if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")
    ]
    return sorted(names)
