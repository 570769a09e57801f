"""What a data set is once it is loaded: pixels, trusted labels, names, in the official order."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fastcpc.data.augment.policies import WeakPolicy

RGB = 3  # channels of every photo, whatever its file holds


@dataclass(frozen=True)
class ArraySplit:
    """One part of a data set; row i of every field is the same sample.

    pixels: uint8 (N, C, H, W) on the CPU. labels: int64 (N,), the labels that came with the data set. source_index:
    int64 (N,), the position in the data set's official order. names: a path, or a made-up name, per sample.
    """

    pixels: torch.Tensor
    labels: np.ndarray
    source_index: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "ArraySplit":
        """The samples at these positions (int64 (M,), of this split), in the order given."""
        return ArraySplit(
            pixels=self.pixels[torch.from_numpy(rows)],
            labels=self.labels[rows],
            source_index=self.source_index[rows],
            names=tuple(self.names[row] for row in rows.tolist()),
        )


@dataclass(frozen=True)
class ImageSplit:
    """One part of a data set of image files; row i of every field is the same sample.

    paths: the files, in the official order. labels: int64 (N,), those that came with the data set. trusted: int64
    (N,), -1 where not known; None where no sample has one. source_index: int64 (N,), the position in the official
    order. names: the paths relative to the data set's root.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    trusted: np.ndarray | None
    source_index: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "ImageSplit":
        """The samples at these positions (int64 (M,), of this split), in the order given."""
        chosen = rows.tolist()
        return ImageSplit(
            paths=tuple(self.paths[row] for row in chosen),
            labels=self.labels[rows],
            trusted=None if self.trusted is None else self.trusted[rows],
            source_index=self.source_index[rows],
            names=tuple(self.names[row] for row in chosen),
        )


AnySplit = ArraySplit | ImageSplit


@dataclass(frozen=True)
class ImageTransform:
    """How a photo becomes a square.

    resize: length of the shorter side in pixels. crop: side of the square, at the centre in test views, at random in
    weak ones. random_resized_crop: weak views take a box of random area and aspect ratio instead. flip: weak views
    are mirrored left to right with probability 1/2.
    """

    resize: int
    crop: int
    random_resized_crop: bool
    flip: bool


@dataclass(frozen=True)
class Dataset:
    """A whole data set.

    mean, std: per channel, of pixels scaled to [0, 1]. weak: the data set's customary weak view; photo: that of image
    files, None where all pixels are in memory. class_ids: what the classes are called in the data set's own files,
    where that is not their name. broken: rows of the training set that are known not to decode.
    superclass_of: for each class the number of its superclass; empty where the data set has none. published_order:
    False for a copy whose samples stand in another order than the published one, in which noise files are written.
    """

    name: str
    class_names: tuple[str, ...]
    train: AnySplit
    tests: Mapping[str, AnySplit]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weak: WeakPolicy
    superclass_of: tuple[int, ...] = ()
    published_order: bool = True
    image: ImageTransform | None = None
    class_ids: tuple[str, ...] = ()
    broken: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        return int(self.train.pixels.shape[1]) if isinstance(self.train, ArraySplit) else RGB

    @property
    def image_size(self) -> int:
        """Height, which equals the width, of an image in pixels."""
        if isinstance(self.train, ArraySplit):
            return int(self.train.pixels.shape[2])
        assert self.image is not None
        return self.image.crop
