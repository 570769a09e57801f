"""Data sets by name."""

from fastcpc.config.checks import PHOTOS
from fastcpc.config.schema import DataConfig
from fastcpc.data.cifar import load_cifar
from fastcpc.data.cifar_facts import CIFAR10, CIFAR100
from fastcpc.data.digits import load_digits_dataset
from fastcpc.data.photos.load import load_photos
from fastcpc.data.split import Dataset, Split

__all__ = ["Dataset", "Split", "load_dataset"]


def load_dataset(config: DataConfig) -> Dataset:
    """Load the whole data set that ``data.name`` names; ``data.subset`` is applied later, after the label noise.

    Raises InputError where files under ``data.root`` are missing, damaged or foreign.
    """
    if config.name == "digits":
        return load_digits_dataset()
    if config.name in PHOTOS:
        return load_photos(config)
    return load_cifar(config.root, CIFAR10 if config.name == "cifar10" else CIFAR100)
