"""Data sets by name."""

from fastcpc.config.schema import DataConfig
from fastcpc.config.validation import PHOTOS
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.datasets.cifar import load_cifar
from fastcpc.data.datasets.cifar_meta import CIFAR10, CIFAR100
from fastcpc.data.datasets.digits import load_digits_dataset
from fastcpc.data.datasets.indexed_images import load_images

__all__ = ["ArraySplit", "Dataset", "load_dataset"]


def load_dataset(config: DataConfig) -> Dataset:
    """Load the whole data set that ``data.name`` names; ``data.subset`` is applied later, after the label noise.

    Raises InputError where files under ``data.root`` are missing, damaged or foreign.
    """
    if config.name == "digits":
        return load_digits_dataset()
    if config.name in PHOTOS:
        return load_images(config)
    return load_cifar(config.root, CIFAR10 if config.name == "cifar10" else CIFAR100)
