"""Names of what fastcpc implements, for settings and ``--help``: nothing that needs torch is imported.

Each implementation registers itself under its name; a test compares the names with the registry.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DatasetTraits:
    """What the rules between settings need to know of a data set.

    kind: arrays, where all images are in memory; images, where they are files; embeddings, where samples are vectors.
    needs_root: whether data.root must name a folder. settings: those of DataConfig that only some data sets read.
    files: endings of its container files; data.root may then also name a file or a pattern. pixels: the side of its
    images; 0 where data.crop sets it, or where it is not known. noise_kinds: the kinds of OWN_NOISE that its classes
    define. is_users_own: whether another data.root is another data set.
    """

    kind: Literal["arrays", "images", "embeddings"]
    needs_root: bool = True
    settings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    pixels: int = 0
    noise_kinds: tuple[str, ...] = ()
    is_users_own: bool = False


CONTAINER_SETTINGS = ("list", "classes", "test_root", "label_key", "image_key")
# data sets: data/registry.py. A script that registers another one adds its name here.
DATASETS = {
    "digits": DatasetTraits("arrays", needs_root=False, pixels=8, noise_kinds=("asym",)),
    "cifar10": DatasetTraits("arrays", pixels=32, noise_kinds=("asym",)),
    "cifar100": DatasetTraits("arrays", pixels=32, noise_kinds=("asym_superclass", "asym_block5")),
    "clothing1m": DatasetTraits("images"),
    "webvision": DatasetTraits("images", settings=("flickr", "ilsvrc12")),
    "imagefolder": DatasetTraits("images", settings=("list", "classes"), is_users_own=True),
    "webdataset": DatasetTraits("images", settings=CONTAINER_SETTINGS, files=(".tar",), is_users_own=True),
    "parquet": DatasetTraits("images", settings=CONTAINER_SETTINGS, files=(".parquet",), is_users_own=True),
    "embeddings": DatasetTraits(
        "embeddings", needs_root=False, settings=("embeddings", "labels", "test_embeddings", "test_labels")
    ),
}
# kinds of label noise that only some data sets define, and what they are
OWN_NOISE = {
    "asym": "between similar classes",
    "asym_superclass": "inside the superclass",
    "asym_block5": "inside blocks of five ids",
}

# networks: models/registry.py. A script that registers another one appends its name here.
BACKBONES = ["preact_resnet18", "airbench", "digits_cnn", "small_cnn", "resnet50", "linear", "mlp"]
EMBEDDING_BACKBONES = ("linear", "mlp")  # networks for data.name=embeddings, and only for it
TIMM_PREFIX = "timm/"  # model.name=timm/NAME
# the largest side of images that these networks are for
MOST_PIXELS = {"airbench": 64, "digits_cnn": 8, "small_cnn": 64}
WEIGHTS_BY_NAME = ["resnet50"]  # networks whose weights can be given by name, beside those of timm
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar")


def is_weights_path(weights: str) -> bool:
    """Whether ``model.weights`` is a path: it has a folder or the suffix of a weights file."""
    return "/" in weights or "\\" in weights or weights.endswith(WEIGHTS_SUFFIXES)


# cleaner.kind: the cleaners that a run uses, in order, by their names in cleaner/registry.py. The last one partitions
# the data after cleaner.warmup, the one before it until then. register_cleaner adds a row.
CLEANER_KINDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "gmm_agn": ("gmm_agn",),
    "gmm_awr": ("gmm_awr",),
    "cpc_agn": ("gmm_agn", "prototypes"),
    "cpc_awr": ("gmm_awr", "prototypes"),
    "cpc_only": ("contrastive",),
    "confusion": ("confusion",),
    "cpc_confusion": ("confusion", "prototypes"),
}
