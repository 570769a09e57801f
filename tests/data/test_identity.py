"""The identity of a data set: what counts as a difference, and how it is described."""

from dataclasses import replace

import numpy as np
import pytest

from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset, ImageSplit, LeftOut
from fastcpc.data.datasets.digits import load_digits_dataset
from fastcpc.data.identity import NEW, DataIdentity, compare, identify, row_map
from fastcpc.data.image_store import ImageFiles

CLASSES = ("cat", "dog", "eel")


def split_of(*images: str) -> ImageSplit:
    """Images as "path:label"."""
    names, labels = zip(*((name, int(label)) for name, label in (image.split(":") for image in images)), strict=True)
    return ImageSplit(ImageFiles(names), np.array(labels, np.int64), None, np.arange(len(names)), names)


def identity(*images: str, left: tuple[str, ...] = (), broken: bool = False, **fields: object) -> DataIdentity:
    train = split_of(*images)
    left_out = LeftOut()
    if left:
        other = split_of(*left)
        left_out = left_out.with_more(other, other.labels, np.arange(len(other)), why="broken" if broken else "subset")
    dataset = Dataset(
        "imagefolder", CLASSES, train, {"test": split_of("t/x.jpg:0")}, (0.0,), (1.0,), WeakPolicy(False, 0),
        class_ids=CLASSES, left_out=left_out,
    )  # fmt: skip
    return identify(replace(dataset, **fields), train.labels, "/data")  # type: ignore[arg-type]


BASE = ("cat/a.jpg:0", "cat/b.jpg:0", "dog/c.jpg:1", "dog/d.jpg:1")
SAME = identity(*BASE)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (identity(*BASE[:3]), "train: 4 images then, 3 now; 1 removed (first dog/d.jpg)"),
        (identity(*BASE, "dog/e.jpg:1"), "train: 4 images then, 5 now; 1 added (first dog/e.jpg)"),
        (
            identity("cat/a.jpg:0", "cat/z.jpg:0", *BASE[2:]),
            "train: 4 images then, 4 now; 1 renamed (first cat/b.jpg -> cat/z.jpg)",
        ),
        (
            identity("cat/a.jpg:0", *BASE[2:], "dog/b.jpg:1"),
            "train: 4 images then, 4 now; 1 relabelled (first cat/b.jpg -> dog/b.jpg)",
        ),
        (identity(*BASE[:3], "dog/d.jpg:2"), "train: 4 images then, 4 now; 1 relabelled (first dog/d.jpg: dog -> eel)"),
        (identity(*BASE[::-1]), "train: 4 images then, 4 now; in another order"),
        (
            identity(*BASE[:3], left=BASE[3:], broken=True),
            "train: 4 images then, 3 now; 1 broken now (first dog/d.jpg)",
        ),
        (identity(*BASE[:3], left=BASE[3:]), "train: 4 images then, 3 now; other samples in data.subset"),
        (
            identity("cat/z.jpg:0", *BASE[2:], "dog/y.jpg:1", "dog/x.jpg:1"),
            "train: 4 images then, 5 now; 2 removed (first cat/a.jpg); 3 added (first cat/z.jpg)",
        ),
        (identity(*BASE, class_names=("Cat", "dog", "eel")), "other class names"),
        (
            identity(*BASE, tests={"test": split_of("t/x.jpg:0"), "val": split_of("v/x.jpg:0")}),
            "val: no such part then",
        ),
    ],
)
def test_a_difference_is_described(now: DataIdentity, text: str) -> None:
    found = compare(SAME, now)
    assert found is not None and (found.text, found.classes) == (text, False)
    assert now.digest != SAME.digest


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (("cat", "dog", "fox"), "3 classes then, 3 now; renamed: eel -> fox"),
        (("cat", "dog"), "3 classes then, 2 now; 1 removed (first eel)"),
        (("ape", "bat", *CLASSES), "3 classes then, 5 now; 2 added (first ape)"),
        (("dog", "cat", "eel"), "3 classes then, 3 now; in another order"),
    ],
)
def test_other_classes_are_described(ids: tuple[str, ...], text: str) -> None:
    found = compare(SAME, identity(*BASE, class_ids=ids), {"test"})
    assert found is not None and (found.text, found.classes) == (text, True)


def test_spellings_of_one_path_are_one_sample() -> None:
    same = identity("/data/cat/a.jpg:0", "./cat//b.jpg:0", *BASE[2:])
    assert same.digest == SAME.digest and compare(SAME, same) is None


def test_only_the_parts_that_are_asked_for_count() -> None:
    assert compare(SAME, identity(*BASE[:3]), {"test"}) is None


def test_rows_follow_their_path_and_label() -> None:
    now = identity("dog/new.jpg:1", "cat/b.jpg:0", "cat/a.jpg:1", "dog/d.jpg:1", left=BASE[2:3])
    assert row_map(SAME.parts["train"], now.parts["train"]).tolist() == [NEW, 1, NEW, 3]
    assert row_map(now.parts["train"], SAME.parts["train"]).tolist() == [NEW, 1, NEW, 3]


def test_images_in_memory_go_by_label_and_index() -> None:
    digits = load_digits_dataset()
    one = identify(digits, digits.train.labels)
    other = digits.train.labels.copy()
    other[3] = 9 - other[3]
    found = compare(one, identify(digits, other))
    assert one.shape == (1, 8, 8) and found is not None
    assert found.text.startswith(f"train: 1,437 images then, 1,437 now; 1 relabelled (first {digits.train.names[3]}: ")
