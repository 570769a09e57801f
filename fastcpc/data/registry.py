"""Registry of the data sets: loading, listing, test view and licence of each.

To add a data set: add its name to ``fastcpc.config.names.DATASETS``, call ``register_dataset``, and train with
data.name=NAME.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

from fastcpc.config import names
from fastcpc.config.normalise import Normalisation, read_normalise
from fastcpc.config.schema import DataConfig
from fastcpc.config.sizes import crop_of, interpolation_of, resize_of
from fastcpc.data.containers.parquet import list_parquet
from fastcpc.data.containers.webdataset import list_webdataset
from fastcpc.data.dataset import RGB, Dataset
from fastcpc.data.datasets import clothing1m, digits
from fastcpc.data.datasets.cifar import load_cifar
from fastcpc.data.datasets.cifar_meta import CIFAR10, CIFAR100, CifarFacts
from fastcpc.data.datasets.clothing1m import list_clothing1m
from fastcpc.data.datasets.held_out import keep_held_out
from fastcpc.data.datasets.image_folder import list_imagefolder
from fastcpc.data.datasets.indexed_images import load_listing
from fastcpc.data.datasets.listing import IMAGENET_MEAN, IMAGENET_STD, Listing
from fastcpc.data.datasets.webvision import filelist_without, list_webvision
from fastcpc.data.embeddings.load import load_embeddings
from fastcpc.data.test_transform import InferenceTransform
from fastcpc.errors import InputError

ListFiles = Callable[[DataConfig], Listing]
ListWithout = Callable[[DataConfig, Sequence[str], Sequence[str]], tuple[bytes, str]]


@dataclass(frozen=True)
class DatasetSpec:
    """A data set.

    load: reads the whole data set; InputError where files under data.root are missing, damaged or foreign.
    inference: the test view, which needs no files.
    list_files: files and labels before anything is decoded; None where ``load`` gives all images as arrays.
    list_without: from kept and dropped paths to the content of the data set's own training list and a sentence on its
    use. None where it has no such list.
    licence: the identifier that model hubs use. terms: the known terms of the images, a sentence without a full stop.
    """

    name: str
    load: Callable[[DataConfig], Dataset]
    inference: Callable[[DataConfig], InferenceTransform]
    list_files: ListFiles | None = None
    list_without: ListWithout | None = None
    licence: str = "unknown"
    terms: str = "the terms of the images are not known to fastcpc"


_DATASETS: dict[str, DatasetSpec] = {}


def register_dataset(spec: DatasetSpec) -> None:
    """Register a data set as data.name=NAME.

    ValueError where config/names.py does not have the name, or has another kind for it.
    """
    traits = names.DATASETS.get(spec.name)
    if traits is None:
        raise ValueError(f"{spec.name}: add the name to DATASETS of fastcpc.config.names, which checks the settings")
    kind = "arrays" if spec.list_files is None else "images"
    if traits.kind != kind and not (kind == "arrays" and traits.kind == "embeddings"):
        raise ValueError(f"{spec.name}: DATASETS of fastcpc.config.names says {traits.kind}, not {kind}")
    _DATASETS[spec.name] = spec


def unregister_dataset(name: str) -> None:
    """Remove a data set that ``register_dataset`` added; its name stays in config/names.py."""
    del _DATASETS[name]


def registered_datasets() -> dict[str, DatasetSpec]:
    """Every registered data set by name."""
    return dict(_DATASETS)


def dataset_spec(name: str) -> DatasetSpec:
    """The data set of a name that the settings allow."""
    return _DATASETS[name]


def load_dataset(config: DataConfig, held_out: Set[str] | None = None) -> Dataset:
    """Load the whole data set that ``data.name`` names; ``data.subset`` is applied later, after the label noise.

    held_out: paths of the images that a run holds out for the accuracy, where the test part is drawn; None: draw it.
    Raises InputError where files under ``data.root`` are missing, damaged or foreign.
    """
    if held_out is None:
        dataset = dataset_spec(config.name).load(config)
    else:
        dataset = load_listing(list_images(config, held_out), config)
    given = _given_normalisation(config, dataset.in_channels)
    return dataset if given is None else replace(dataset, mean=given[0], std=given[1])


def list_images(config: DataConfig, held_out: Set[str] | None = None) -> Listing:
    """Files and labels of a data set of image files. held_out: as ``load_dataset``.

    Raises InputError as the module of the data set does.
    """
    list_files = dataset_spec(config.name).list_files
    assert list_files is not None
    return list_files(config) if held_out is None else keep_held_out(list_files(config), held_out, config.root)


def inference_transform(config: DataConfig) -> InferenceTransform:
    """The test view of the data set that ``data.name`` names, with mean and std of ``data.normalise``."""
    inputs = dataset_spec(config.name).inference(config)
    given = _given_normalisation(config, inputs.channels)
    return inputs if given is None else replace(inputs, mean=given[0], std=given[1])


def _given_normalisation(config: DataConfig, channels: int) -> Normalisation | None:
    """Mean and std of ``data.normalise``; None where the setting names those of the data set.

    ``auto`` is such a case: a run that starts from weights replaces it by mean and std before it loads the data.
    """
    given = read_normalise(config.normalise)
    if given is not None and len(given[0]) != channels:
        raise InputError(
            f"data.normalise={config.normalise}: {len(given[0])} values for images of {channels} "
            f"channel{'s' if channels > 1 else ''}; give {channels} of each"
        )
    return given


def cifar_spec(facts: CifarFacts) -> DatasetSpec:
    """CIFAR-10 or CIFAR-100."""
    view = InferenceTransform(RGB, facts.image_size, facts.image_size, facts.mean, facts.std)
    terms = f"{facts.title} states no licence and asks to cite Krizhevsky 2009"
    return DatasetSpec(facts.name, lambda config: load_cifar(config.root, facts), lambda _: view, terms=terms)


def _images(
    name: str,
    list_files: ListFiles,
    licence: str,
    terms: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    list_without: ListWithout | None = None,
) -> DatasetSpec:
    def inference(config: DataConfig) -> InferenceTransform:
        return InferenceTransform(RGB, resize_of(config), crop_of(config), mean, std, interpolation_of(config))

    return DatasetSpec(
        name,
        partial(_load_images, list_files),
        inference,
        list_files,
        list_without,
        licence=licence,
        terms=terms,
    )


def _no_test_view(_: DataConfig) -> InferenceTransform:
    raise InputError(
        "this run classifies embeddings, not images: embed new images with the same model (fastcpc-embed), and measure "
        "them with data.test_embeddings"
    )


def _load_images(list_files: ListFiles, config: DataConfig) -> Dataset:
    return load_listing(list_files(config), config)


register_dataset(
    DatasetSpec(
        "digits",
        lambda _: digits.load_digits_dataset(),
        lambda _: InferenceTransform(1, digits.SIZE, digits.SIZE, digits.MEAN, digits.STD),
        licence="cc-by-4.0",
        terms="scikit-learn's digits: UCI Optical Recognition of Handwritten Digits, CC BY 4.0",
    )
)
register_dataset(cifar_spec(CIFAR10))
register_dataset(cifar_spec(CIFAR100))
register_dataset(
    _images(
        "clothing1m",
        lambda config: list_clothing1m(config.root),
        "other",
        "Clothing1M: non-commercial research only, no redistribution",
        clothing1m.MEAN,
        clothing1m.STD,
        clothing1m.key_list_without,
    )
)
register_dataset(
    _images(
        "webvision",
        lambda config: list_webvision(config.root, config.num_classes, config.flickr, config.ilsvrc12),
        "unknown",
        "WebVision: images of the web with their owners' rights; see its site for the terms",
        IMAGENET_MEAN,
        IMAGENET_STD,
        filelist_without,
    )
)
register_dataset(
    _images(
        "imagefolder",
        lambda config: list_imagefolder(config.root, config.list, config.classes, config.holdout),
        "unknown",
        "the user's own images; their terms are not known to fastcpc",
        IMAGENET_MEAN,
        IMAGENET_STD,
    )
)
for _name, _list_files in (("webdataset", list_webdataset), ("parquet", list_parquet)):
    register_dataset(
        _images(
            _name,
            _list_files,
            "unknown",
            "the user's own images; their terms are not known to fastcpc",
            IMAGENET_MEAN,
            IMAGENET_STD,
        )
    )
register_dataset(
    DatasetSpec(
        "embeddings", load_embeddings, _no_test_view, terms="the user's own embeddings; their terms are unknown"
    )
)
