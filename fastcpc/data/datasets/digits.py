"""Loads the digits of scikit-learn: 1,797 grey images of 8x8, part of the package, no download."""

import numpy as np
import torch

from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import ArraySplit, Dataset

NUM_TEST = 360
SIZE = 8  # pixels
MAX_VALUE = 16  # the embedded images count dots in 4x4 blocks
MEAN, STD = (0.3054,), (0.3760,)  # of the training part; a test checks them


def load_digits_dataset() -> Dataset:
    """The digits, split into 1,437 training and 360 test images.

    The split is stratified and drawn with a fixed seed, so all runs have the same split.
    source_index is the position in the order of scikit-learn.
    """
    # imported here, so that other data sets do not load scikit-learn
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bundle = load_digits()
    pixels = np.rint(bundle.images * (255 / MAX_VALUE)).astype(np.uint8)[:, None]
    labels = bundle.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=NUM_TEST, stratify=labels, random_state=0)
    return Dataset(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        train=_part("train", pixels, labels, np.sort(train)),
        tests={"test": _part("test", pixels, labels, np.sort(test))},
        mean=MEAN,
        std=STD,
        weak=WeakPolicy(flip=False, padding=1),
    )


def _part(prefix: str, pixels: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> ArraySplit:
    names = tuple(f"{prefix}/{row:05d}" for row in rows.tolist())
    return ArraySplit(torch.from_numpy(pixels[rows]), labels[rows], rows.astype(np.int64), names)
