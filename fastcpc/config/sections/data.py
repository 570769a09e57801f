"""The settings of data, label noise and augmentation."""

from dataclasses import dataclass
from typing import Literal

from fastcpc.config.constraints import Range
from fastcpc.config.names import DATASETS
from fastcpc.config.sections.base import AUGDMIX, DIVIDEMIX, Section, setting


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Images and labels."""

    name: str = setting(
        "digits",
        "Data set. digits: included in scikit-learn; imagefolder: your own images, one folder per class, or data.list; "
        "webdataset: your own images in tar shards; parquet: in Parquet files, as Hugging Face has them; embeddings: "
        "vectors per sample, data.embeddings.",
        choices=DATASETS,
    )
    root: str = setting(
        "",
        "Folder of the data set, or its parent; digits needs none. webdataset and parquet: a file, a folder, or a "
        "pattern such as 'train-{000..127}.tar' or 'data/*.parquet'.",
    )
    test_root: str = setting(
        "",
        "webdataset and parquet: file, folder or pattern of the test part. Empty: files of data.root with test in "
        "their name or folder.",
    )
    label_key: str = setting(
        "",
        "webdataset: where labels are: cls, txt, or a key of the .json members; parquet: column of labels. Empty: "
        "found by its name.",
    )
    image_key: str = setting(
        "", "webdataset: ending of the images, such as jpg; parquet: column of images. Empty: the only one there is."
    )
    subset: int = setting(0, "Train on the first N samples after a seeded shuffle; 0: all.", allowed=Range(0))
    feed: Literal["auto", "memory", "dali", "torch"] = setting(
        "auto",
        "Loader. memory: all images on the device as uint8 (digits, CIFAR). For image files, dali: NVIDIA DALI; torch: "
        "Pillow in threads. auto: memory for digits and CIFAR, else dali where it is installed, else torch.",
    )
    workers: int = setting(0, "Threads that decode image files; 0: one per core, at most 16.", allowed=Range(0))
    list: str = setting(
        "",
        "imagefolder: table (csv, tsv, parquet) with the columns path, label and optionally split, trusted_label; or "
        "txt with lines 'path label'. Paths are relative to data.root. Empty: the folders are the classes. webdataset "
        "and parquet: the same with paths SHARD.tar/MEMBER or FILE.parquet#ROW; it replaces the labels in the files.",
    )
    classes: str = setting(
        "",
        "imagefolder, webdataset and parquet: text file with one class per line, 'name' or 'id name', in order. Empty: "
        "sorted by name.",
    )
    holdout: float = setting(
        0.1,
        "imagefolder, webdataset, parquet and embeddings without a val or test part: share of each class that is held "
        "out to measure the accuracy. 0: none; the accuracy is then that on the training samples.",
        allowed=Range(0, 0.5),
    )
    embeddings: str = setting(
        "",
        "embeddings: file of vectors (N, D) in float16 or float32: .npy (read from a memory map), .npz, or Parquet "
        "with a column of lists; or a folder of fastcpc-embed.",
    )
    labels: str = setting(
        "",
        "embeddings: label file, one label per row, as noise.file; or a table with the columns path and label (class, "
        "split and trusted_label where known). Empty: index.parquet of the folder of fastcpc-embed.",
    )
    test_embeddings: str = setting("", "embeddings: file of the test vectors. Empty: rows with split test, or holdout.")
    test_labels: str = setting("", "embeddings: label file of data.test_embeddings.")
    corrections: str = setting(
        "",
        "Decisions about training labels: corrections.csv of the report, or Label Studio's JSON export. Corrected and "
        "kept labels count as clean; removed samples are left out.",
    )
    num_classes: int = setting(50, "webvision: number of classes, the first K.", DIVIDEMIX, Range(2, 1000))
    flickr: bool = setting(False, "webvision: also train on the Flickr list, after the Google list.", DIVIDEMIX)
    ilsvrc12: str = setting("", "webvision: folder of the validation images of ILSVRC12, a second test set.")
    index: str = setting(
        "", "Image files: index that fastcpc-prepare wrote. Empty: ROOT/.fastcpc-index/NAME.parquet if it exists."
    )
    cache: str = setting(
        "auto",
        "Image files: cache that fastcpc-prepare --cache wrote. auto: the cache beside the index, if it fits "
        "data.resize; off: no cache; or its PATH.",
    )
    ram_cache: float = setting(
        0.0,
        "Image files: keep the bytes of files in memory after the first read, up to this many GB.",
        allowed=Range(0),
    )
    hw_decoder_load: float = setting(
        0.65,
        "Image files, dali on a GPU: share of the JPEG files that the hardware decoder decodes.",
        "NVIDIA DALI",
        Range(0, 1),
    )
    max_bad: float = setting(
        0.001,
        "Image files: largest allowed share of broken training images; test sets must have none.",
        allowed=Range(0, 1),
    )
    resize: int = setting(
        0,
        "Image files: length of the shorter side before the crop, pixels; data.crop / data.resize is the crop ratio. "
        "0: data.crop divided by the crop ratio that model.weights expect; without weights 256.",
        DIVIDEMIX,
        Range(0),
    )
    crop: int = setting(
        0,
        "Image files: side of the square crop that the networks get, pixels. 0: the size that model.weights expect; "
        "without weights 224.",
        DIVIDEMIX,
        Range(0),
    )
    interpolation: Literal["auto", "bilinear", "bicubic"] = setting(
        "auto",
        "Image files: interpolation that resizes images. auto: the one that model.weights expect; without weights "
        "bilinear.",
    )
    random_resized_crop: bool = setting(
        False, "Image files: weak views use a random resized crop instead of a random square."
    )
    normalise: str = setting(
        "auto",
        "Mean and standard deviation that normalise pixels. auto: those that model.weights expect, for RGB images; "
        "without weights those of the data set. data: those of the data set. Or MEAN/STD per channel, such as "
        "0.5,0.5,0.5/0.5,0.5,0.5.",
    )
    flip: bool = setting(True, "Image files: flip weak views horizontally with probability 1/2.", DIVIDEMIX)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(Section):
    """Label noise that is added to true labels."""

    kind: Literal["none", "sym", "asym", "asym_superclass", "asym_block5", "asym_next", "asym_pairs", "file"] = setting(
        "none",
        "sym: a random class; asym: a similar class (CIFAR-10, digits); asym_superclass, asym_block5: the two "
        "definitions of asym on CIFAR-100; asym_next: the next class, after the last the first; asym_pairs: "
        "noise.pairs; file: noise.file. All except none use the labels of the data set as true labels.",
        DIVIDEMIX,
    )
    rate: float = setting(
        0.0,
        "Share of samples whose label is drawn. sym may draw the true label again.",
        DIVIDEMIX,
        Range(0, 1),
    )
    pairs: str = setting(
        "",
        "noise.kind=asym_pairs: pairs 'true class -> given class', such as 'shirt -> longsleeve, skirt -> dress', with "
        "the class names of the data set. Other classes keep their labels.",
    )
    file: str = setting(
        "",
        "noise.kind=file: label file (csv, tsv, txt, parquet, json, npy, npz, or pt of CIFAR-N), one label per "
        "training sample.",
    )
    key: str = setting(
        "", "noise.kind=file: name of the labels in a file that contains several (CIFAR-N: worse_label, ...)."
    )
    seed: int = setting(-1, "Seed of the noise; -1: run.seed.", allowed=Range(-1))


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """Weak and strong views of an image."""

    strong: Literal["autoaugment", "randaugment", "geometric"] = setting(
        "autoaugment",
        "Operations on top of the weak view. autoaugment: the CIFAR-10 policy, for image files the ImageNet policy; "
        "randaugment; geometric: the shears, translations and rotations of RandAugment.",
        AUGDMIX,
    )
    style: Literal["torchvision", "augdmix"] = setting(
        "torchvision",
        "autoaugment: how operations are applied. torchvision: as torchvision does; augdmix: as AugDMix with Pillow: "
        "grey outside the image, bicubic shears, rotations in one direction.",
        AUGDMIX,
    )
    randaugment_ops: int = setting(2, "randaugment and geometric: operations per view.", allowed=Range(1))
    randaugment_magnitude: int = setting(9, "randaugment and geometric: strength.", allowed=Range(0, 30))
    embeddings: Literal["noise", "dropout", "none"] = setting(
        "noise", "data.name=embeddings: views. noise: normal noise is added; dropout: values are set to 0; none."
    )
    embeddings_strength: float = setting(
        0.2,
        "data.name=embeddings: of strong views; weak views have half of it. noise: standard deviation, where each "
        "dimension has 1; dropout: share of the values.",
        allowed=Range(0, 1, high_open=True),
    )
    train: Literal["weak", "strong"] = setting("strong", "View of the training loss; weak: plain DivideMix.", AUGDMIX)
    warmup: Literal["weak", "strong"] = setting("weak", "View of the warm-up; strong: SAW of AugDMix.", AUGDMIX)
