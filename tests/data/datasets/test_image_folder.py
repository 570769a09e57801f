"""A folder a class, parts above them, lists of every kind, and what does not fit together."""

import os
from pathlib import Path

import image_sets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastcpc.data.datasets.image_folder import list_imagefolder
from fastcpc.errors import InputError


def test_classes_and_files_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_sets.imagefolder(tmp_path, {"train/b": 3, "train/a/deep/er": 2, "train/a": 1, "test/a": 1, "val/b": 2})
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self) -> "Reversed":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> "Reversed":
            return self

        def __next__(self) -> "os.DirEntry[str]":
            return next(self.entries)

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    listing = list_imagefolder(str(tmp_path))
    train = listing.splits["train"]
    assert listing.class_names == ("a", "b")
    names = ("a/000.jpg", "a/deep/er/000.jpg", "a/deep/er/001.jpg", "b/000.jpg", "b/001.jpg", "b/002.jpg")
    assert train.names == tuple(f"train/{name}" for name in names)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and train.trusted is None
    assert listing.splits["test"].names == ("test/a/000.jpg",)
    assert listing.splits["val"].labels.tolist() == [1, 1]
    assert listing.remarks == ()


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_without_test_the_val_part_is_tested_on(tmp_path: Path, name: str) -> None:
    splits = list_imagefolder(
        str(image_sets.imagefolder(tmp_path, {"train/a": 1, "train/b": 1, f"{name}/b": 2}))
    ).splits
    assert splits["test"] is splits["val"] and splits["val"].labels.tolist() == [1, 1]


def test_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {"a": 20, "b": 4, "c": 1})
    listing = list_imagefolder(str(tmp_path), holdout=0.2)
    train, test = listing.splits["train"], listing.splits["test"]
    assert np.bincount(test.labels, minlength=3).tolist() == [4, 1, 0]
    assert np.bincount(train.labels, minlength=3).tolist() == [16, 3, 1]
    assert sorted([*train.source_index, *test.source_index]) == list(range(25))
    assert sorted(train.names) == list(train.names) and not set(train.names) & set(test.names)
    assert list_imagefolder(str(tmp_path), holdout=0.2).splits["test"].names == test.names
    assert "no val or test part: 5 images (0.2 of each class)" in listing.remarks[0]


def test_hidden_and_other_files_do_not_count(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1, ".cache/x": 1, "train/.git": 1})
    image_sets.put(tmp_path / "train/a/.hidden.jpg")
    image_sets.put(tmp_path / "train/a/notes.txt")
    image_sets.put(tmp_path / "train/b/LOUD.JPEG")
    listing = list_imagefolder(str(tmp_path))
    assert len(listing.splits["train"]) == 5 and listing.class_names == ("a", "b")
    assert [remark for remark in listing.remarks if "1 files are left alone" in remark and "notes.txt" in remark]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path / "store", {"x": 2})
    image_sets.imagefolder(tmp_path / "root", {"train/a": 1, "train/b": 1, "test/a": 1})
    (tmp_path / "root/train/a/more").symlink_to(tmp_path / "store/x")
    (tmp_path / "store/x/back").symlink_to(tmp_path / "root/train/a")
    assert list_imagefolder(str(tmp_path / "root")).splits["train"].names[:3] == (
        "train/a/000.jpg", "train/a/more/000.jpg", "train/a/more/001.jpg",
    )  # fmt: skip


def test_numbers_as_class_names_are_warned_about(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {f"train/{k}": 1 for k in range(11)} | {"test/1": 1})
    listing = list_imagefolder(str(tmp_path))
    assert listing.class_names[:3] == ("0", "1", "10")
    assert "sorted as text: 0, 1, 10, 2, 3" in listing.remarks[0]
    order = image_sets.lines(tmp_path / "classes.txt", [str(k) for k in range(11)])
    listing = list_imagefolder(str(tmp_path), classes_file=str(order))
    assert listing.class_names[:3] == ("0", "1", "2") and listing.remarks == ()
    image_sets.imagefolder(tmp_path / "few", {"train/0": 1, "train/1": 1, "test/1": 1})
    assert list_imagefolder(str(tmp_path / "few")).remarks == ()


def test_a_class_file_gives_order_and_names(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {"train/n00000001": 1, "train/n00000002": 2, "test/n00000001": 1})
    classes = image_sets.lines(tmp_path / "classes.txt", ["n00000002 tench, fish", "n00000001 crane"])
    listing = list_imagefolder(str(tmp_path), classes_file=str(classes))
    assert listing.class_names == ("tench, fish", "crane") and listing.class_ids == ("n00000002", "n00000001")
    assert listing.splits["train"].labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/a": 1, "train/b": 1, "val/c": 1}, r"val/c: class 'c' is not in train/"),
        ({"train/a": 1, "train/b": 1, "val/b": 1, "valid/b": 1}, "val/ and valid/ mean the same; keep one"),
        ({"val/a": 1, "test/a": 1}, "has test/, val/ but no train/"),
        ({"train/a": 1, "val/a": 1}, "train: 1 class folders; at least two are required"),
        ({"train/a": 1, "train/b": 0, "test/a": 1}, "b: no images .*.jpg.* in this class's folder"),
        ({"a": 1, "b": 1}, "no class has two images: nothing can be kept out"),
    ],
)
def test_different_classes_per_part_are_an_error(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    for folder in image_sets.imagefolder(tmp_path, counts) and counts:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError, match=message):
        list_imagefolder(str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a"], "b: class 'b' is not in data.classes"),
        (["a", "b", "c"], "no folder 'c', a class of data.classes"),
        (["a", "b", "a"], "line 3 names class 'a' again"),
    ],
)
def test_wrong_class_files_are_an_error(tmp_path: Path, rows: list[str], message: str) -> None:
    image_sets.imagefolder(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1})
    with pytest.raises(InputError, match=message):
        list_imagefolder(str(tmp_path), classes_file=str(image_sets.lines(tmp_path / "classes.txt", rows)))


@pytest.mark.parametrize("depth", ["", "train", "train/a"])
def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: str) -> None:
    image_sets.imagefolder(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1})
    scandir = os.scandir

    def closed(path: str = ".") -> object:
        if os.fspath(path) == str(tmp_path / depth):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match=rf"{tmp_path / depth}: cannot be read \(Permission denied\)"):
        list_imagefolder(str(tmp_path))


ROWS = [
    ("x/b, 2.jpg", "cat", "train", "dog"),
    ("x/a 1.jpg", "dog", "train", ""),
    ("y/c.jpg", "cat", "test", ""),
    ("y/d.jpg", "dog", "validation", "dog"),
]


def write_list(path: Path) -> Path:
    names = ("path", "label", "split", "trusted_label")
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in ROWS]), path)
        return path
    if path.suffix == ".tsv":
        return image_sets.lines(path, ["\t".join(row) for row in (names, *ROWS)])
    return image_sets.lines(path, [",".join(names), *(f'"{row[0]}",' + ",".join(row[1:]) for row in ROWS)])


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_tables_give_paths_labels_splits_and_trusted_labels(tmp_path: Path, ending: str) -> None:
    listing = list_imagefolder(str(tmp_path), str(write_list(tmp_path / f"list{ending}")))
    train = listing.splits["train"]
    assert listing.class_names == ("cat", "dog")
    assert train.names == ("x/b, 2.jpg", "x/a 1.jpg") and train.paths[0] == str(tmp_path / "x/b, 2.jpg")
    assert train.labels.tolist() == [0, 1]
    assert train.trusted is not None and train.trusted.tolist() == [1, -1]
    assert listing.splits["test"].names == ("y/c.jpg",) and listing.splits["val"].labels.tolist() == [1]


def test_text_lists_split_at_the_last_blank_and_hold_a_share_out(tmp_path: Path) -> None:
    rows = [f"x/some photo, {i}.jpg {i % 2}" for i in range(20)]
    listing = list_imagefolder(str(tmp_path), str(image_sets.lines(tmp_path / "l.txt", rows)), holdout=0.1)
    whole = sorted([*listing.splits["train"].names, *listing.splits["test"].names])
    assert whole == sorted(f"x/some photo, {i}.jpg" for i in range(20))
    assert listing.class_names == ("0", "1") and len(listing.splits["test"]) == 2


def test_numbers_are_class_numbers_not_sorted_texts(tmp_path: Path) -> None:
    rows = ["path,label,split", *(f"{k}.jpg,{k},train" for k in range(12)), "z.jpg,10,test"]
    listing = list_imagefolder(str(tmp_path), str(image_sets.lines(tmp_path / "l.csv", rows)))
    assert listing.splits["train"].labels.tolist() == list(range(12))
    assert listing.splits["test"].labels.tolist() == [10] and listing.class_names[10] == "10"


def test_labels_of_a_list_go_by_a_class_file(tmp_path: Path) -> None:
    classes = image_sets.lines(tmp_path / "c.txt", ["n00000002 tench", "n00000001 crane"])
    rows = ["path,label,split", "a,crane,train", "b,n00000002,train", "c,1,train", "d,0,test"]
    listing = list_imagefolder(str(tmp_path), str(image_sets.lines(tmp_path / "l.csv", rows)), str(classes))
    assert listing.splits["train"].labels.tolist() == [1, 0, 1] and listing.class_names == ("tench", "crane")


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "l.csv",
            ["a.jpg,1,2"],
            r"l.csv:1: no column path and label \(a.jpg, 1, 2\); name the columns in the first line: path, label",
        ),
        (
            "l.csv",
            ["path,label", "a,1,2.jpg,0"],
            r"l.csv:2: 4 fields, expected 2 \(path, label\); put a path that contains a delimiter in quotes",
        ),
        ("l.csv", ["path,label", "a.jpg"], "l.csv:2: 1 fields, expected 2"),
        ("l.csv", ["path,label", "a.jpg,x", ",x"], r"l.csv:3: no path \(empty\)"),
        (
            "l.csv",
            ["path,label", "a.jpg,x", "b.jpg,"],
            r"l.csv:3: no label \(empty, 1 row in all\); give these images a label or delete their rows",
        ),
        ("l.csv", ["path,label", 'a.jpg,"x'], r"l.csv:2: not a table \(unexpected end of data\)"),
        ("l.csv", ["path,label,path", "a,b,c"], "column 'path' occurs twice"),
        ("l.csv", ["path,label"], "a header but no rows"),
        (
            "l.csv",
            ["path,label", "a.jpg,x", "b.jpg,y", "a.jpg,y"],
            "l.csv:4: 'a.jpg' again, with 'y'; line 2 gives it 'x'; keep one of the rows",
        ),
        ("l.csv", ["path,label,split", "a.jpg,x,eval"], "l.csv:2: split 'eval'; write train, val or test"),
        ("l.csv", ["path,label,split", "a.jpg,x,test"], "no row has split train"),
        (
            "l.csv",
            ["path,label,split", "a,x,train", "b,y,train", "c,z,val"],
            "l.csv:4: label 'z' is a class without training images",
        ),
        ("l.csv", ["path,label", "a,x", "b,x"], "l.csv:2: label 'x' is the only class; at least two are required"),
        ("l.csv", ["path,label", "a,0", "b,2"], r"no training image of class 1 \(1\)"),
        (
            "l.csv",
            ["path,label", "a,0", "b,99999999999"],
            "l.csv:3: label '99999999999' exceeds the number of images; number the classes from 0 or 1",
        ),
        ("l.txt", ["a.jpg 0", "b.jpg"], r"l.txt:2: no label \('b.jpg'\); write 'path label'"),
        ("l.json", ["[]"], "unknown kind of list; use .csv, .tsv, .parquet, .txt"),
        ("l.parquet", ["junk"], "not a Parquet file that can be read"),
    ],
)
def test_lists_with_a_bad_line(tmp_path: Path, name: str, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        list_imagefolder(str(tmp_path), str(image_sets.lines(tmp_path / name, rows)))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    image_sets.put(tmp_path / "l.csv", b"path,label\n\xff\xfe,1\n")
    with pytest.raises(InputError, match=r"l.csv:2: not text in UTF-8 \(byte 11: 0xff\); save the file as UTF-8"):
        list_imagefolder(str(tmp_path), str(tmp_path / "l.csv"))
    with pytest.raises(InputError, match=r"data.list=.*no.csv: no such file"):
        list_imagefolder(str(tmp_path), str(tmp_path / "no.csv"))


def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {"a": 2, "b": 2})
    os.rename(tmp_path / "b" / "001.jpg", os.path.join(os.fsencode(tmp_path), b"b", b"caf\xe9.jpg"))
    with pytest.raises(InputError, match=r"caf.udce9\.jpg': this name is not UTF-8; rename it") as caught:
        list_imagefolder(str(tmp_path))
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize(
    ("train", "test", "note"),
    [
        ("Train", "Test", "Test/ is read as test, Train/ is read as train"),
        ("training", "testing", "testing/ is read as test, training/ is read as train"),
        ("TRAIN", "test", "TRAIN/ is read as train"),
    ],
)
def test_names_of_parts_ignore_upper_and_lower_case(tmp_path: Path, train: str, test: str, note: str) -> None:
    image_sets.imagefolder(tmp_path, {f"{train}/a": 2, f"{train}/b": 2, f"{test}/a": 1, f"{test}/b": 1})
    listing = list_imagefolder(str(tmp_path))
    assert listing.class_ids == ("a", "b") and {name: len(part) for name, part in listing.splits.items()} == {
        "train": 4,
        "test": 2,
    }
    assert note in listing.remarks


def test_a_test_folder_among_class_folders_is_refused(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {"cat": 3, "dog": 3, "Test": 2})
    with pytest.raises(InputError, match=r"has Test/ beside class folders \(cat, dog\) but no train/; move the class"):
        list_imagefolder(str(tmp_path))
    classes = image_sets.lines(tmp_path / "classes.txt", ["cat", "dog", "Test"])  # the remedy of the message
    assert list_imagefolder(str(tmp_path), classes_file=str(classes)).class_ids == ("cat", "dog", "Test")


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {"train/a": 2, "train/b": 2, "Training/a": 2})
    with pytest.raises(InputError, match="Training/ and train/ mean the same; keep one"):
        list_imagefolder(str(tmp_path))
