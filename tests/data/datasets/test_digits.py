"""The embedded digits: counts, scale, and a split that never changes."""

import hashlib

import numpy as np
from sklearn.datasets import load_digits

from fastcpc.config.schema import DataConfig
from fastcpc.data.registry import load_dataset


def test_digits_by_value() -> None:
    data, bundle = load_dataset(DataConfig(name="digits")), load_digits()
    assert (len(data.train), len(data.tests["test"])) == (1437, 360)
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, 8)
    assert (data.weak.flip, data.weak.padding) == (False, 1)
    for split in (data.train, data.tests["test"]):
        assert (split.labels == bundle.target[split.source_index]).all()
        assert split.labels.dtype == np.int64
        expected = np.array([[[round(v * 255 / 16) for v in row] for row in image] for image in bundle.images])
        assert (split.pixels[:, 0].numpy() == expected[split.source_index]).all()
    assert data.train.names[0] == "train/00000"
    assert data.tests["test"].names[0].startswith("test/")


def test_split_is_stratified_and_whole() -> None:
    data = load_dataset(DataConfig(name="digits"))
    train, test = data.train.source_index, data.tests["test"].source_index
    assert sorted([*train, *test]) == list(range(1797))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    counts = np.bincount(data.tests["test"].labels)
    assert (np.abs(counts - 0.2003 * np.bincount(load_digits().target)) < 1).all()


def test_split_never_changes() -> None:
    """Results are compared over years: the test images are pinned."""
    index = load_dataset(DataConfig(name="digits")).tests["test"].source_index
    assert hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()[:16] == "2fbaae31b8c6aad1"


def test_mean_and_std_are_of_the_training_part() -> None:
    data = load_dataset(DataConfig(name="digits"))
    scaled = data.train.pixels.numpy() / 255
    assert abs(scaled.mean() - data.mean[0]) < 1e-4
    assert abs(scaled.std() - data.std[0]) < 1e-4
