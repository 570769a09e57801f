"""Labels of embeddings in all their forms: what is repaired is one note, what is ambiguous is one line."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fastcpc.config.schema import DataConfig
from fastcpc.data.dataset import Dataset
from fastcpc.data.registry import load_dataset
from fastcpc.errors import InputError

X = np.arange(12).reshape(6, 2).astype(np.float16)


def write(folder: Path, name: str, content: object) -> str:
    path = folder / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, np.array(content))
    return str(path)


def load(folder: Path, name: str, content: object, **settings: str) -> Dataset:
    np.save(folder / "x.npy", X)
    file = write(folder, name, content)
    return load_dataset(
        DataConfig(name="embeddings", embeddings=str(folder / "x.npy"), labels=file, holdout=0.0, **settings)
    )


def table(labels: str, header: str = "path,label") -> str:
    return f"{header}\n" + "".join(f"{row}.png,{label}\n" for row, label in enumerate(labels.split("|")))


def column(labels: str, header: str = "label") -> str:
    return "\n".join([header, *labels.split("|")])


GOOD = {
    "numbers": ("t.csv", table("0|1|2|0|1|2"), "0 1 2", "012012", ""),
    "from 1": ("t.csv", table("1|2|3|1|2|3"), "1 2 3", "012012", "labels count from 1: label 1 is class 0"),
    "from 1, npy": ("y.npy", [1, 2, 3, 1, 2, 3], "1 2 3", "012012", "labels count from 1: label 1 is class 0"),
    "from 1, txt": ("y.txt", "1\n2\n1\n2\n1\n2", "1 2", "010101", "labels count from 1: label 1 is class 0"),
    "from 1, no paths": ("y.csv", column("1|2|1|2|1|2"), "1 2", "010101", "labels count from 1"),
    "floats": ("t.csv", table("0.0|1.0|3.0|2.0|1.0|2.0"), "0 1 2 3", "013212", "labels like 0.0 read as 0"),
    "other names": ("t.csv", table("a|b|a|b|a|b", "filename,category"), "a b", "010101", "columns 'filename' as path"),
    "names, no paths": ("y.csv", column("dog|cat|dog|cat|cat|cat"), "cat dog", "101000", ""),
    "semicolon": ("t.csv", table("a|b|a|b|a|b").replace(",", ";"), "a b", "010101", "semicolon"),
    "no header": ("t.csv", table("a|b|a|b|a|b").partition("\n")[2], "a b", "010101", "no header, read as path"),
    "index of numbers": ("t.csv", "image,label\n5,1\n4,0\n3,1\n2,0\n1,1\n0,0\n", "0 1", "010101", "as index"),
}


@pytest.mark.parametrize("case", GOOD)
def test_forms_that_leave_no_doubt(tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    name, content, classes, labels, note = GOOD[case]
    with caplog.at_level(logging.WARNING, "fastcpc"):
        dataset = load(tmp_path, name, content)
    assert " ".join(dataset.class_names) == classes
    assert "".join(map(str, dataset.train.labels)) == labels
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(note) and all(str(tmp_path / name) in line and note in line for line in said), said


BAD = {
    "empty": (table("0|1||0|1|0"), r"t\.csv:4: no label \(empty, 1 row in all\)"),
    "NA": (table("a|b|NA|b|NA|b"), r"t\.csv:4: no label \('NA', 2 rows in all\)"),
    "-1": (table("0|1|-1|0|1|0"), r"t\.csv:4: no label \('-1', 1 row in all\)"),
    "case": (table("cat|Cat|dog|cat|dog|cat"), r"only in case; write one class in one form$"),
    "fraction": (table("0|1|0.5|0|1|0"), r"t\.csv:4: label '0\.5' is not a whole number, and .*; correct it$"),
    "zeros": (table("0|01|2|0|1|2"), r"t\.csv:3: label '01' and label '0' have other leading zeros"),
    "two columns": ("file,image,label\n" + "a.png,b.png,0\n" * 6, r"can both be the column path"),
    "no label": (table("0|1|0|1|0|1", "path,other"), r"t\.csv:1: no column label"),
    "case, no paths": (column("cat|Cat|dog|cat|dog|cat"), r"label 'cat' differs from label 'Cat' only in case"),
    "NA, no paths": (column("a|b|NA|b|a|b"), r"t\.csv:4: no label \('NA', 1 row in all\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_forms_that_could_mean_two_things_are_refused(tmp_path: Path, case: str) -> None:
    content, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, "t.csv", content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("t.npy", [3, 2, 1, 1, 2, 3], "210012"),
        ("t.csv", table("3|2|1|1|2|3"), "210012"),
        ("t.csv", table("3.0|2.0|1.0|1.0|2.0|3.0"), "210012"),
        ("t.npy", [2, 2, 1, 1, 2, 1], "110010"),
        ("t.npy", [0, 2, 1, 1, 2, 1], r"t\.npy: row 0: label 0 is no class of the training embeddings"),
        ("t.csv", table("0|2|1|1|2|3"), r"t\.csv:2: label '0' is no class of the training embeddings"),
        ("t.npy", [4, 2, 1, 1, 2, 1], r"entry 0: label 4 is outside"),
        ("t.csv", table("4|2|1|1|2|3"), r"t\.csv:2: label '4' is no class of the training embeddings"),
    ],
)
def test_test_labels_count_as_the_training_labels(tmp_path: Path, name: str, content: object, labels: str) -> None:
    settings = {"test_embeddings": str(tmp_path / "x.npy"), "test_labels": write(tmp_path, name, content)}
    if labels.isdigit():
        dataset = load(tmp_path, "y.npy", [1, 2, 3, 1, 2, 3], **settings)
        assert "".join(map(str, dataset.tests["test"].labels)) == labels
    else:
        with pytest.raises(InputError, match=labels):
            load(tmp_path, "y.npy", [1, 2, 3, 1, 2, 3], **settings)
