"""A loaded data set: pixels or files, labels and names, in the official order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from fastcpc.config.sizes import BILINEAR
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.image_store import ImageStore, all_paths

RGB = 3  # channels of each decoded image file, also of grey files


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

    images: the encoded images, in the official order. labels: int64 (N,), those that came with the data set. trusted:
    int64 (N,), -1 where not known; None where no sample has one. source_index: int64 (N,), the position in the official
    order. names: the paths relative to the data set's root; of a member of a container file CONTAINER/MEMBER.
    """

    images: ImageStore
    labels: np.ndarray
    trusted: np.ndarray | None
    source_index: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "ImageSplit":
        """The samples at these positions (int64 (M,), of this split), in the order given."""
        return ImageSplit(
            images=self.images.take(rows),
            labels=self.labels[rows],
            trusted=None if self.trusted is None else self.trusted[rows],
            source_index=self.source_index[rows],
            names=tuple(self.names[row] for row in rows.tolist()),
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each image, for messages."""
        return all_paths(self.images)


@dataclass(frozen=True)
class EmbeddingSplit:
    """One part of a data set of embeddings; entry i of every other field is the same sample.

    array: floating (M, D), usually a memory map. rows: int64 (N,), the row of each sample in it. labels, trusted,
    source_index: as in ``ImageSplit``. names: a path, or a made-up name, per sample.
    """

    array: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    trusted: np.ndarray | None
    source_index: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "EmbeddingSplit":
        """The samples at these positions (int64 (M,), of this split), in the order given; copies no embeddings."""
        return EmbeddingSplit(
            array=self.array,
            rows=self.rows[rows],
            labels=self.labels[rows],
            trusted=None if self.trusted is None else self.trusted[rows],
            source_index=self.source_index[rows],
            names=tuple(self.names[row] for row in rows.tolist()),
        )


AnySplit = ArraySplit | ImageSplit | EmbeddingSplit
LeftOutBecause = Literal["broken", "subset", "removed"]


@dataclass(frozen=True)
class LeftOut:
    """Training images that a run does not train on: broken ones, those outside data.subset, removed ones.

    names, labels: as in a split; labels are the given ones, with noise and corrections. broken, removed: bool (M,);
    removed: by data.corrections.
    """

    names: tuple[str, ...] = ()
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    broken: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    removed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))

    def with_more(self, split: AnySplit, labels: np.ndarray, rows: np.ndarray, *, why: LeftOutBecause) -> "LeftOut":
        """These and the samples of a split at these positions (int64 (M,)); labels: given labels of the split."""
        return LeftOut(
            names=(*self.names, *(split.names[row] for row in rows.tolist())),
            labels=np.concatenate([self.labels, labels[rows]]),
            broken=np.concatenate([self.broken, np.full(len(rows), why == "broken")]),
            removed=np.concatenate([self.removed, np.full(len(rows), why == "removed")]),
        )


@dataclass(frozen=True)
class ImageTransform:
    """How a decoded image becomes a square.

    resize: length of the shorter side in pixels. crop: side of the square. It is at the centre in test views and at
    random in weak views. random_resized_crop: weak views take a crop of random area and aspect ratio instead. flip:
    weak views are mirrored left to right with probability 1/2. interpolation: bilinear or bicubic, of every resampling.
    """

    resize: int
    crop: int
    random_resized_crop: bool
    flip: bool
    interpolation: str = BILINEAR


@dataclass(frozen=True)
class Dataset:
    """A whole data set.

    mean, std: per channel, of pixels scaled to [0, 1]; per dimension of embeddings. weak: the usual weak view.
    image_transform: the views of image files; None where all pixels are in memory.
    class_ids: the ids of the classes in the files of the data set, where they differ from the names.
    broken: rows of the training set that do not decode.
    superclass_of: the number of the superclass per class; empty where the data set has none.
    held_out: whether the test part is drawn from the training images. left_out: training images outside ``train``.
    published_order: False for a copy whose samples are not in the published order. Noise files use that order.
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
    image_transform: ImageTransform | None = None
    class_ids: tuple[str, ...] = ()
    broken: tuple[int, ...] = ()
    held_out: bool = False
    left_out: LeftOut = LeftOut()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        if isinstance(self.train, EmbeddingSplit):
            return int(self.train.array.shape[1])
        return int(self.train.pixels.shape[1]) if isinstance(self.train, ArraySplit) else RGB

    @property
    def image_size(self) -> int:
        """Height, which equals the width, of an image in pixels; 1 for embeddings."""
        if isinstance(self.train, EmbeddingSplit):
            return 1
        if isinstance(self.train, ArraySplit):
            return int(self.train.pixels.shape[2])
        assert self.image_transform is not None
        return self.image_transform.crop
