"""Label files in the forms that spreadsheets, pandas and other tools write."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_bytes import NFC, NFD, parquet

from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset
from fastcpc.data.datasets.listing import make_split
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.errors import InputError

IMAGES = ("cat/1.jpg", "cat/2.jpg", f"dog/{NFC}.jpg", "dog/4.jpg")
GIVEN = [1, 0, 0, 1]


def dataset(names: tuple[str, ...] = ("cat", "dog")) -> Dataset:
    train = make_split("/data", IMAGES, [0, 0, 1, 1])
    test = make_split("/data", ["test/9.jpg"], [0])
    return Dataset("mine", names, train, {"test": test}, (0.5,), (0.5,), WeakPolicy(False, 0), class_ids=names)


SHUFFLED = (2, 0, 3, 1)


def by(names: Callable[[int], str], header: str) -> bytes:
    """A label file in another order than the data set."""
    return "\n".join([header, *(f"{names(row)},{GIVEN[row]}" for row in SHUFFLED)]).encode()


def image(row: int) -> str:
    return IMAGES[row]


LABEL_FILES: dict[str, tuple[str, bytes, str]] = {
    "path": ("a.csv", by(image, "path,label"), ""),
    "filename": ("a.csv", by(image, "filename,label"), "column 'filename' as path"),
    "image": ("a.csv", by(image, "image,class"), "column 'image' as path; column 'class' as label"),
    "id with paths": ("a.csv", by(image, "id,label"), "column 'id' as path"),
    "id with positions": ("a.csv", by(str, "id,label"), "column 'id' as index"),
    "no name": ("a.csv", by(image, ",label"), "as path"),
    "unknown name": ("a.csv", by(image, "picture,label"), "column 'picture' as path"),
    "index": ("a.csv", by(str, "index,label"), ""),
    "index as floats": ("a.csv", by(lambda row: f"{row}.0", "index,label"), ""),
    "NFD and ./": ("a.csv", by(lambda row: "./" + IMAGES[row].replace(NFC, NFD), "path,label"), ""),
    "backslashes": ("a.csv", by(lambda row: IMAGES[row].replace("/", "\\"), "path,label"), "backslashes"),
    "absolute": ("a.csv", by(lambda row: f"/data/{IMAGES[row]}", "path,label"), "absolute paths"),
    "file names": ("a.csv", by(lambda row: IMAGES[row].split("/")[1], "file,label"), "found by file name"),
    "other images": (
        "a.csv",
        by(image, "path,label") + b"\ntest/9.jpg,1\n",
        "1 rows of images that are not for training",
    ),
    "class names": ("a.csv", by(image, "path,label").replace(b",1", b",dog").replace(b",0", b",cat"), ""),
    "semicolon tsv": ("a.tsv", by(image, "path,label").replace(b",", b";"), "semicolon-separated"),
    "text": ("a.txt", by(image, "path,label").replace(b",", b" "), ""),
    "Parquet": (
        "a.parquet",
        parquet(file_name=[IMAGES[row] for row in SHUFFLED], label=[float(GIVEN[row]) for row in SHUFFLED]),
        "column 'file_name' as path; labels like 0.0 read as 0",
    ),
    "repeated": ("a.csv", by(image, "path,label") + f"\n./{IMAGES[0]},1.0".encode(), "1 row that repeats"),
    "JSON floats": ("a.json", b"[1.0, 0.0, 0, 1]", "labels like 0.0 read as 0"),
    "JSON Booleans": ("a.json", b"[true, false, false, true]", "True as class 1"),
    "JSON names": ("a.json", b'["dog", "cat", "cat", "dog"]', ""),
    "pandas positions": ("a.csv", b",label\n0,1\n1,0\n2,0\n3,1\n", "rows by position"),
}


@pytest.mark.parametrize("case", LABEL_FILES)
def test_label_file_forms(tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture) -> None:
    name, content, note = LABEL_FILES[case]
    (tmp_path / name).write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="fastcpc"):
        labels = read_label_file(str(tmp_path / name), "", dataset())
    assert labels.dtype == np.int64 and labels.tolist() == GIVEN
    assert len(caplog.messages) == bool(note)
    assert not note or note in caplog.messages[0]


BAD_LABEL_FILES = {
    "1-based": ("a.json", b"[1, 2, 1, 2]", ": entry 1: label 2 is outside 0..1: labels look 1-based; subtract 1"),
    "shuffled pandas": (
        "a.csv",
        b",label\n2,1\n0,0\n1,0\n3,1\n",
        ":2: column without a name has 2 where rows by position have 0",
    ),
    "shuffled id": (
        "a.csv",
        b"sample,label\n0,1\n2,0\n1,0\n3,1\n",
        ":3: column 'sample' has 2 where rows by position have 1",
    ),
    "unknown name": (
        "a.csv",
        by(lambda row: f"x/{row}.jpg", "filename,label"),
        ":2: 'x/2.jpg' is no training image's path (4 in",
    ),
    "two labels": (
        "a.csv",
        by(image, "path,label") + f"\n{IMAGES[2]},1".encode(),
        f":6: '{IMAGES[2]}' again, with '1'; line 2",
    ),
    "names of nothing": (
        "a.csv",
        by(lambda row: f"photo{row}", "filename,label"),
        ":2: 'photo2' is no training image's path (4 in all); write paths as 'cat/1.jpg'",
    ),
    "missing image": ("a.csv", b"path,label\ncat/1.jpg,1\n", f": no row for 3 training samples ('{IMAGES[1]}'); add"),
    "unlabelled": (
        "a.csv",
        by(image, "path,label").replace(b",0", b",N/A"),
        ":2: no label ('N/A', 2 rows in all); give",
    ),
    "case": (
        "a.csv",
        by(image, "path,label").replace(b",1", b",Dog"),
        ":3: label 'Dog' is neither a class number nor a class name; write 'dog'",
    ),
    "mixed Booleans": ("a.json", b"[0, true, 0, 1]", ": entry 1: label 'True (Boolean)' is neither"),
}


@pytest.mark.parametrize("case", BAD_LABEL_FILES)
def test_label_files_in_doubt_are_refused(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_LABEL_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_label_file(str(tmp_path / name), "", dataset())
    assert str(caught.value).startswith(f"{tmp_path / name}{message}"), str(caught.value)


def test_numbers_that_name_other_classes_are_refused(tmp_path: Path) -> None:
    data = dataset(("1", "0"))
    (tmp_path / "a.csv").write_bytes(by(image, "path,label"))
    with pytest.raises(
        InputError, match=r"a.csv:2: label '0' is class name '0' \(class 1\) or class number 0; write class"
    ):
        read_label_file(str(tmp_path / "a.csv"), "", data)
    np.save(tmp_path / "a.npy", np.array(GIVEN))
    assert read_label_file(str(tmp_path / "a.npy"), "", data).tolist() == GIVEN


def test_numbers_outside_the_class_range_are_class_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(by(image, "path,label").replace(b",1", b",2").replace(b",0", b",1"))
    assert read_label_file(str(tmp_path / "a.csv"), "", dataset(("1", "2"))).tolist() == GIVEN
