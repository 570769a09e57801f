"""Samples and labels of webdataset shards."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_sets
import numpy as np
import pytest
from containers import Member, write_tar

from fastcpc.config.schema import DataConfig
from fastcpc.data.containers import handles
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.listing import Listing
from fastcpc.data.image_files import BadImage
from fastcpc.data.registry import list_images
from fastcpc.errors import InputError

JPEGS = [image_sets.jpeg(i) for i in range(4)]


def listing(root: Path, **settings: Any) -> Listing:
    return list_images(DataConfig(name="webdataset", root=str(root), **{"holdout": 0.0, **settings}))


def problem(root: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as error:
        listing(root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def pairs(*labels: str, ending: str = "cls", start: int = 0) -> list[Member]:
    """000.jpg, 000.cls, 001.jpg, ..."""
    members: list[Member] = []
    for number, label in enumerate(labels, start):
        members += [(f"{number:03d}.jpg", JPEGS[number % 4]), (f"{number:03d}.{ending}", label.encode())]
    return members


def all_of(split: ImageSplit) -> list[tuple[str, int, bytes]]:
    return [
        (n, k, split.images.read(i)) for i, (n, k) in enumerate(zip(split.names, split.labels.tolist(), strict=True))
    ]


def test_samples_in_the_order_of_files_and_images(tmp_path: Path) -> None:
    """Members may be in any order; the image decides. Folders, several dots and upper case are part of names."""
    write_tar(
        tmp_path / "b.tar",
        [
            ("./x/2.v1.cls", b"0"),
            ("z.JPG", JPEGS[0]),
            ("./x/2.v1.jpeg", JPEGS[1]),
            ("z.CLS", b"1\n"),
            ("._z.jpg", b"mac"),
            ("a.jpg", JPEGS[2]),
            ("a.cls", b"0"),
            ("x/2.v2.png", JPEGS[3]),
            ("x/2.v2.cls", b"1"),
        ],
    )
    write_tar(tmp_path / "a.tar", pairs("1", "0"))
    split = listing(tmp_path).splits["train"]
    assert [name for name, _, _ in all_of(split)] == [
        "a.tar/000.jpg", "a.tar/001.jpg", "b.tar/z.JPG", "b.tar/x/2.v1.jpeg", "b.tar/a.jpg", "b.tar/x/2.v2.png",
    ]  # fmt: skip
    assert split.labels.tolist() == [1, 0, 1, 0, 0, 1] and split.images.read(3) == JPEGS[1]
    assert split.images.path(0) == str(tmp_path / "a.tar" / "000.jpg")


@pytest.mark.parametrize(
    ("ending", "settings", "names"),
    [
        ("cls", {}, ("ä", "cat")),
        ("txt", {}, ("ä", "cat")),
        ("json", {}, ("ä", "cat")),
        ("json", {"label_key": "kind"}, ("ä", "cat")),
    ],
)
def test_labels_of_each_member(tmp_path: Path, ending: str, settings: dict[str, str], names: tuple[str, str]) -> None:
    labels = ["ä", "cat", "ä"]
    key = settings.get("label_key", "class_name")
    texts = [
        json.dumps({"url": "x", key: label, "key": "0"}) if ending == "json" else f" {label}\n" for label in labels
    ]
    write_tar(tmp_path / "a.tar", pairs(*texts, ending=ending))
    found = listing(tmp_path, **settings)
    assert found.class_names == tuple(sorted(names)) and found.splits["train"].labels.tolist() == [1, 0, 1]


def test_cls_comes_before_json_and_json_before_captions(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "x.tar", [*pairs("0", "1"), *pairs("{}", "{}", ending="json")[1::2]])
    assert listing(tmp_path / "a").splits["train"].labels.tolist() == [0, 1]
    both = [
        *pairs('{"label": 1, "true_label": 0}', '{"label": 0}', ending="json"),
        ("000.txt", b"a cat"),
        ("001.txt", b"b"),
    ]
    write_tar(tmp_path / "b" / "x.tar", both)
    split = listing(tmp_path / "b").splits["train"]
    assert split.labels.tolist() == [1, 0] and split.trusted is not None and split.trusted.tolist() == [0, -1]


def test_parts_by_name_folder_and_setting(tmp_path: Path) -> None:
    for name, labels in (
        ("imagenet-train-000000", "01"),
        ("imagenet-train-000001", "10"),
        ("imagenet-val-000000", "01"),
    ):
        write_tar(tmp_path / "a" / f"{name}.tar", pairs(*labels))
    splits = listing(tmp_path / "a").splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "val": 2, "test": 2}
    write_tar(tmp_path / "b" / "train" / "0.tar", pairs("0", "1"))
    write_tar(tmp_path / "b" / "testing" / "0.tar", pairs("1"))
    splits = listing(tmp_path / "b").splits
    assert splits["test"].names == ("testing/0.tar/000.jpg",) and len(splits["train"]) == 2
    splits = listing(
        tmp_path / "a" / "imagenet-train-{000000..000001}.tar", test_root=str(tmp_path / "b" / "testing")
    ).splits
    assert splits["test"].names == ("../b/testing/0.tar/000.jpg",) and len(splits["train"]) == 4
    held_out = listing(tmp_path / "a" / "*train*.tar", holdout=0.5)
    assert held_out.held_out and len(held_out.splits["test"]) == 2
    only = listing(tmp_path / "a" / "imagenet-val-000000.tar")
    assert "val files only" in only.remarks[0] and len(only.splits["train"]) == 2


def test_a_list_replaces_the_labels(tmp_path: Path) -> None:
    """Shards need no labels then; the list selects images and parts."""
    write_tar(tmp_path / "s" / "a.tar", [(f"{i}.jpg", JPEGS[i]) for i in range(4)])
    rows = ["path,label,split", "a.tar/2.jpg,cat,train", "a.tar/0.jpg,dog,train", f"{tmp_path}/s/a.tar/3.jpg,dog,test"]
    found = listing(tmp_path / "s", list=str(image_sets.lines(tmp_path / "l.csv", rows)))
    assert [content for _, _, content in all_of(found.splits["train"])] == [JPEGS[2], JPEGS[0]]
    assert found.class_names == ("cat", "dog") and found.splits["test"].images.read(0) == JPEGS[3]
    image_sets.lines(tmp_path / "l.csv", [*rows, "a.tar/9.jpg,cat,train"])
    text = problem(tmp_path / "s", list=str(tmp_path / "l.csv"))
    assert text.endswith("l.csv:5: 'a.tar/9.jpg' is no image of data.root (1 in all); write paths as 'a.tar/0.jpg'")


BAD: dict[str, tuple[Callable[[Path], object], dict[str, str], str]] = {
    "no label": (
        lambda root: write_tar(root / "a.tar", [*pairs("0", "1"), ("x.jpg", JPEGS[0]), ("y.jpg", JPEGS[0])]),
        {},
        "a.tar/x.jpg: no label (2 images in all); give each image a .cls member, or list the labelled images in",
    ),
    "empty label": (
        lambda root: write_tar(root / "a.tar", pairs("0", "1", " \n")),
        {},
        "a.tar/002.jpg: no label (1 image",
    ),
    "no labels at all": (
        lambda root: write_tar(root / "a.tar", pairs("0", "1")[::2]),
        {},
        "a.tar: no labels (no .cls, .json",
    ),
    "json without the key": (
        lambda root: write_tar(
            root / "a.tar", [*pairs('{"url": "x", "caption": "y"}', ending="json"), ("000.txt", b"y")]
        ),
        {},
        "a.tar/000.json: no key label (url, caption); name the key in data.label_key, or data.label_key=txt if the",
    ),
    "json without the asked key": (
        lambda root: write_tar(root / "a.tar", pairs('{"url": "x"}', ending="json")),
        {"label_key": "kind"},
        "a.tar/000.json: no key 'kind' (url); name the key in data.label_key",
    ),
    "a later json without the key": (
        lambda root: write_tar(root / "a.tar", pairs('{"label": 0}', '{"label": 1}', '{"lable": 1}', ending="json")),
        {},
        "a.tar/002.jpg: no label (1 image in all); give each .json member the key 'label'",
    ),
    "two keys": (
        lambda root: write_tar(root / "a.tar", pairs('{"class": 0, "category": 1}', ending="json")),
        {},
        "a.tar/000.json: 'class' and 'category' can both be the column label; name one in data.label_key",
    ),
    "no json": (
        lambda root: write_tar(root / "a.tar", pairs("{]", ending="json")),
        {},
        "000.json: is not JSON that can be",
    ),
    "a json list": (
        lambda root: write_tar(root / "a.tar", pairs("[1]", ending="json")),
        {},
        "000.json: is a JSON list",
    ),
    "captions": (
        lambda root: write_tar(root / "a.tar", pairs(*(f"a picture of {i}" for i in range(20)), ending="txt")),
        {},
        "a.tar: .txt members have 20 texts for 20 images: captions, not labels",
    ),
    "not text": (
        lambda root: write_tar(root / "a.tar", [("0.jpg", JPEGS[0]), ("0.cls", b"\xff\xfe\x00")]),
        {},
        "a.tar/0.cls: is not UTF-8 text",
    ),
    "two images of a sample": (
        lambda root: write_tar(root / "a.tar", [("0.jpg", JPEGS[0]), ("0.png", JPEGS[1]), ("0.cls", b"1")]),
        {},
        "a.tar: 0.jpg and 0.png are two images of one sample; data.image_key names the ending of the",
    ),
    "a member twice": (
        lambda root: write_tar(root / "a.tar", [*pairs("0", "1"), *pairs("1")]),
        {},
        "a.tar: has two members 000.jpg; give each sample a key of its own",
    ),
    "one name twice": (
        lambda root: write_tar(
            root / "a.tar", [(f"{dot}0.{end}", b"1") for dot in ("", "./") for end in ("jpg", "cls")]
        ),
        {},
        "a.tar: members '0.jpg' and './0.jpg' are one name in outputs; rename one of them",
    ),
    "several lines": (
        lambda root: write_tar(root / "a.tar", pairs("0", "1\n2")),
        {},
        "001.jpg: label '1\\n2' has several lines or a NUL, which a class name cannot have",
    ),
    "labels only": (
        lambda root: write_tar(root / "a.tar", [("0.cls", b"1")]),
        {},
        "a.tar: no images in the shards (labels only)",
    ),
    "one class": (lambda root: write_tar(root / "a.tar", pairs("cat", "cat")), {}, "label 'cat' is the only class"),
    "half a number": (
        lambda root: write_tar(root / "a.tar", pairs("0", "0.5")),
        {},
        "001.jpg: label '0.5' is not a whole",
    ),
    "a new class in test": (
        lambda root: (write_tar(root / "train.tar", pairs("a", "b")), write_tar(root / "test.tar", pairs("a", "c"))),
        {},
        "test.tar/001.jpg: label 'c' is a class without training images",
    ),
    "empty folder": (lambda root: None, {}, "no shards (.tar) in this folder; give the folder that has them"),
    "parquet instead": (lambda root: image_sets.put(root / "a.parquet"), {}, "it has a.parquet: data.name=parquet"),
    "compressed": (
        lambda root: (write_tar(root / "a.tar", pairs("0", "1")), image_sets.put(root / "b.tar.gz")),
        {},
        "b.tar.gz: is compressed, so single members cannot be read; decompress it",
    ),
    "only test": (
        lambda root: write_tar(root / "test-0.tar", pairs("0", "1")),
        {},
        "has test files but no training files",
    ),
    "part unknown": (
        lambda root: (write_tar(root / "train-0.tar", pairs("0", "1")), write_tar(root / "more.tar", pairs("0", "1"))),
        {},
        "more.tar: is no train, val or test file by its name",
    ),
    "two parts in a name": (
        lambda root: write_tar(root / "train-test.tar", pairs("0", "1")),
        {},
        "train-test.tar: is test and train by its name",
    ),
    "no images": (
        lambda root: write_tar(root / "a.tar", [("a.npy", b"x"), ("a.cls", b"1")]),
        {},
        "no images in the shards",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_each_problem_is_one_line(tmp_path: Path, case: str) -> None:
    make, settings, expected = BAD[case]
    make(tmp_path)
    assert expected in problem(tmp_path, **settings)


def test_missing_root_and_pattern_without_files(tmp_path: Path) -> None:
    assert problem(tmp_path / "x") == f"data.root={tmp_path}/x: no such file or folder"
    assert problem(tmp_path / "*.tar") == f"data.root={tmp_path}/*.tar: no file matches {tmp_path}/*.tar"
    write_tar(tmp_path / "0.tar", pairs("0", "1"))
    assert f"no file matches {tmp_path}/1.tar" in problem(tmp_path / "{0..1}.tar")


def test_image_key_and_other_members(tmp_path: Path) -> None:
    more = [("000.png", JPEGS[1]), ("002.cls", b"0"), ("a.npy", b"")]
    write_tar(tmp_path / "a.tar", [*pairs("1", "0"), *more])
    found = listing(tmp_path, image_key="jpg")
    assert found.splits["train"].images.read(0) == JPEGS[0]
    assert any("1 labels without an image" in remark for remark in found.remarks)
    assert any("left alone: 000.png" in remark for remark in found.remarks)


def test_damaged_images_are_read_like_files(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("0.jpg", b""), ("0.cls", b"1"), ("1.jpg", JPEGS[0]), ("1.cls", b"0")])
    images = listing(tmp_path).splits["train"].images
    with pytest.raises(BadImage, match="the file is empty"):
        images.read(0)
    write_tar(tmp_path / "b.tar", pairs("0", "1"))
    images = listing(tmp_path / "b.tar").splits["train"].images
    (tmp_path / "b.tar").unlink()
    handles._open.clear()  # a file that is open can be read after it is deleted
    with pytest.raises(BadImage, match="cannot be read"):
        images.take(np.array([1])).read(0)


def test_long_names_of_pax_and_gnu(tmp_path: Path) -> None:
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        key = "d/" * 60 + "ünï"
        write_tar(tmp_path / "a.tar", [(f"{key}.jpg", JPEGS[0]), (f"{key}.cls", b"0"), *pairs("1")], kind)
        assert listing(tmp_path).splits["train"].names[0] == f"a.tar/{key}.jpg"
