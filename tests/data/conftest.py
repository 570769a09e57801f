"""Small data sets on disk and in memory, in the forms in which users hold them."""

import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.datasets.cifar_meta import CIFAR10, CIFAR100, CifarFacts


def python2_pickle(value: Any) -> bytes:
    """What Python 2's cPickle writes at protocol 2: byte strings (U, T), NumPy arrays with their bytes as a string."""

    def emit(item: Any) -> bytes:
        if isinstance(item, dict):
            return b"}(" + b"".join(emit(key) + emit(entry) for key, entry in item.items()) + b"u"
        if isinstance(item, list):
            return b"](" + b"".join(emit(entry) for entry in item) + b"e"
        if isinstance(item, str):
            raw = item.encode("latin1")
            return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw
        if isinstance(item, int):
            return b"J" + struct.pack("<i", item)
        assert isinstance(item, np.ndarray)
        code, order = item.dtype.str[1:], item.dtype.str[0]
        dtype = b"cnumpy\ndtype\n" + emit(code) + b"K\x00K\x01\x87R"
        dtype += b"(K\x03" + emit(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(emit(size) for size in item.shape) + b"t"
        start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return start + b"(K\x01" + shape + dtype + b"\x89" + emit(item.tobytes().decode("latin1")) + b"tb"

    return b"\x80\x02" + emit(value) + b"."


@pytest.fixture
def facts10() -> CifarFacts:
    """CIFAR-10 with 4 records in a training file, 3 in the test file, of 2x2 pixels."""
    return replace(CIFAR10, train_records=4, test_records=3, image_size=2, first_labels=())


@pytest.fixture
def facts100() -> CifarFacts:
    """CIFAR-100 with 6 classes in 2 superclasses, 12 training and 3 test records of 2x2 pixels."""
    return replace(
        CIFAR100, num_classes=6, num_superclasses=2, train_records=12, test_records=3, image_size=2, first_labels=()
    )


def records(facts: CifarFacts, num: int, seed: int) -> dict[str, np.ndarray]:
    """Made-up content of one file: data (N, 3*S*S), labels, coarse labels (class k is of superclass k % 2)."""
    draws = np.random.default_rng(seed)
    labels = np.arange(num) % facts.num_classes
    data = draws.integers(0, 256, (num, facts.pixel_bytes), dtype=np.uint8)
    return {"data": data, "labels": labels, "coarse": labels % max(1, facts.num_superclasses)}


@pytest.fixture
def write_cifar(tmp_path: Path) -> Callable[..., Path]:
    """Writes a whole data set, ``write_cifar(facts, kind, pickler)``, and returns the inner folder."""

    def write(facts: CifarFacts, kind: str, pickler: Callable[[Any], bytes] = python2_pickle) -> Path:
        layout = next(layout for layout in facts.layouts if layout.kind == kind)
        folder = tmp_path / layout.folder
        folder.mkdir()
        sizes = [facts.train_records] * len(layout.train_files) + [facts.test_records] * len(layout.test_files)
        for number, (name, num) in enumerate(zip(layout.train_files + layout.test_files, sizes, strict=True)):
            content = records(facts, num, number)
            if kind == "binary":
                columns = [content["labels"][:, None], content["data"]]
                if facts.num_superclasses:
                    columns.insert(0, content["coarse"][:, None])
                (folder / name).write_bytes(np.concatenate(columns, axis=1).astype(np.uint8).tobytes())
                continue
            entries = {"batch_label": f"part {number}", facts.label_key: content["labels"].tolist()}
            if facts.coarse_key:
                entries[facts.coarse_key] = content["coarse"].tolist()
            (folder / name).write_bytes(pickler({**entries, "data": content["data"], "filenames": ["a.png"] * num}))
        if layout.meta:
            names = [f"class {chr(97 + k)}".replace(" ", "_") for k in range(facts.num_classes)]
            binary = kind == "binary"
            meta = ("\n".join(names) + "\n\n").encode() if binary else pickler({"fine_label_names": names})
            (folder / layout.meta).write_bytes(meta)
        return folder

    return write


class Bomb:
    """Pickles to a call of os.system that creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "it-ran")


@pytest.fixture
def pickle2() -> Callable[[Any], bytes]:
    """Python 3's pickle at protocol 2, which writes bytes through _codecs.encode."""
    return lambda value: pickle.dumps(value, protocol=2)


def make_dataset(labels: np.ndarray, num_classes: int = 10, name: str = "made up") -> Dataset:
    """A data set in memory of 1x4x4 images; official positions and names are 0, 2, 4, ..."""
    num = len(labels)
    pixels = torch.arange(num * 16).remainder(256).to(torch.uint8).view(num, 1, 4, 4)
    index = 2 * np.arange(num, dtype=np.int64)
    split = ArraySplit(pixels, labels.astype(np.int64), index, tuple(f"train/{i:05d}" for i in index))
    classes = tuple(f"class {k}" for k in range(num_classes))
    return Dataset(name, classes, split, {"test": split}, (0.5,), (0.25,), WeakPolicy(flip=True, padding=1))


@pytest.fixture
def dataset_of() -> Callable[..., Dataset]:
    return make_dataset
