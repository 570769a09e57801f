"""The training images of a run, read from the data set, and thumbnails of them."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from fastcpc.config.data_root import root_folder
from fastcpc.config.schema import DataConfig
from fastcpc.data.containers.by_name import NamedImages
from fastcpc.data.dataset import ArraySplit
from fastcpc.data.embeddings.record import EMBED_FILE, embedded_image_key, embedded_root
from fastcpc.data.image_files import BadImage, decode_image
from fastcpc.data.registry import dataset_spec, load_dataset
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.run import Run

SIDE = 160  # pixels of the longer side of a thumbnail
SMALL_SIDE = 48  # images up to this size are not scaled
MOST_BYTES = 20_000  # of one thumbnail; 200 of them in base64 are below 5.5 MB


class TrainingImages:
    """Images by row of ``SampleTable``.

    problem: why no image can be read: the data set is missing, or it is another one; else empty. Single files may still
    be missing.
    """

    def __init__(self, run: Run, samples: SampleTable, root: str = "") -> None:
        """root: folder of the images; empty: data.root, relative to the current folder."""
        data = dataclasses.replace(run.config.data, root=root) if root else run.config.data
        self.problem = ""
        self._files = NamedImages("", ())
        self._pixels: np.ndarray | None = None
        try:
            if data.name == "embeddings":
                self._files = _image_files(*_embedded_root(data), samples)
            elif dataset_spec(data.name).list_files is not None:
                self._files = _image_files(data.root, data.image_key, samples)
            else:
                self._pixels = training_pixels(load_dataset(data).train, samples, run)
        except InputError as error:
            self.problem = str(error).splitlines()[0]

    def image(self, row: int) -> Image.Image:
        """The whole upright image of a sample, mode RGB, or L for grey data sets. BadImage with the reason."""
        if self.problem:
            raise BadImage(self.problem)
        if self._pixels is None:
            return decode_image(self._files.read(row))
        channels_last = self._pixels[row].transpose(1, 2, 0)
        return Image.fromarray(
            np.ascontiguousarray(channels_last[..., 0] if len(self._pixels[row]) == 1 else channels_last)
        )


def image_folder(data: DataConfig) -> Path:
    """The folder below which a data set of image files has them. InputError where it is not known."""
    return root_folder(_embedded_root(data)[0] if data.name == "embeddings" else data.root)


def _embedded_root(data: DataConfig) -> tuple[str, str]:
    """Folder and image key of the images that were embedded: data.root, or as fastcpc-embed recorded it."""
    record = Path(data.embeddings).expanduser()
    record = (record if record.is_dir() else record.parent) / EMBED_FILE
    root, image_key = (embedded_root(record), embedded_image_key(record)) if record.is_file() else ("", "")
    if not (data.root or root):
        raise InputError("data.root is empty: it names the folder of the images that were embedded")
    return data.root or root, image_key


def _image_files(root: str, image_key: str, samples: SampleTable) -> NamedImages:
    base = root_folder(root)
    if not base.is_dir():
        raise InputError(f"data.root={root}: no such folder")
    return NamedImages(str(base), samples.paths, image_key)


def training_pixels(train: object, samples: SampleTable, run: Run) -> np.ndarray:
    """uint8 (N, C, H, W) of the run's samples, found by name; InputError where the true labels are others."""
    assert isinstance(train, ArraySplit)
    place = {name: row for row, name in enumerate(train.names)}
    missing = next((name for name in samples.paths if name not in place), None)
    if missing is not None:
        raise InputError(f"the data set has no sample {missing[:80]!r}; it is not the one that the run was trained on")
    rows = np.array([place[name] for name in samples.paths], np.int64)
    true_N = run.labels.trusted_N
    if true_N is not None and len(true_N) == len(rows) and (train.labels[rows] != true_N).any():
        raise InputError("the data set has other labels; it is not the one that the run was trained on")
    return np.asarray(train.pixels.numpy()[rows])


def encode(image: Image.Image) -> tuple[str, bool]:
    """An image of mode RGB or L as a data URL of at most MOST_BYTES before base64, and whether it is tiny."""
    buffer = io.BytesIO()
    if max(image.size) <= SMALL_SIDE:
        image.save(buffer, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}", True
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    for quality in (82, 60, 40, 20, 5):
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True)
        if len(buffer.getvalue()) <= MOST_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}", False
