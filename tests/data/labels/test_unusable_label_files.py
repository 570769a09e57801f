"""Every way in which the content of a label file can be unusable, with its message; no content is run or unpacked."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_bytes import CIFAR_N, GIVEN, INDEXED, PATHS, TRUE, fails, npy, npz, pt, text

from fastcpc.data.dataset import Dataset


@pytest.fixture
def dataset(dataset_of: Callable[..., Dataset]) -> Dataset:
    return dataset_of(TRUE)


BAD = {
    # JSON
    "empty": ("a.json", b"", "", ": is empty"),
    "truncated json": ("a.json", b"[1, 2,", "", ": not JSON, or truncated: Expecting value at line 1, column 7"),
    "binary json": ("a.json", b"\x93NUMPY\xff\xfe", "", ": not JSON: not text in UTF-8"),
    "nested json": ("a.json", b"[" * 200_000, "", ": not a label file: JSON nested too deeply"),
    "json number": ("a.json", b"7", "", ": holds a single int, expected a list of labels or a dict with one"),
    "json dict of numbers": ("a.json", b'{"a": 1}', "", ": holds no list of labels"),
    "json dict of lists": (
        "a.json",
        b'{"a": [1], "b": [2]}',
        "",
        ": holds several lists, set noise.key to one of a, b",
    ),
    "json wrong key": ("a.json", b'{"a": [1], "b": [2]}', "c", ": no 'c' in it (noise.key); it holds a, b"),
    "json key on a list": (
        "a.json",
        b"[1]",
        "c",
        ": no 'c' in it (noise.key); its labels have no name, leave noise.key empty",
    ),
    "json too long": ("a.json", b"[0,1,2,3,4,5,6]", "", ": 7 labels, expected 6; write one label per training sample"),
    "json none": ("a.json", b"[]", "", ": 0 labels, expected 6; write one label per training sample"),
    "json NaN": (
        "a.json",
        b"[0,NaN,2,3,4,5]",
        "",
        ": entry 1: no label (empty, 1 row in all); give these images a label",
    ),
    "json bool": (
        "a.json",
        b"[0,1,true,3,4,5]",
        "",
        ": entry 2: label 'True (Boolean)' is neither a class number nor a class name; write a class name or a"
        " number in 0..9",
    ),
    "json nested list": (
        "a.json",
        b"[0,1,2,3,4,[5]]",
        "",
        ": entry 5: label 'a list' is neither a class number nor a class name",
    ),
    "json negative": (
        "a.json",
        b"[0,1,2,3,-1,5]",
        "",
        ": entry 4: no label ('-1', 1 row in all); give these images a label",
    ),
    "json too large": (
        "a.json",
        b"[0,1,2,3,4,10]",
        "",
        ": entry 5: label 10 is outside 0..9; use the classes of made up",
    ),
    "json huge": (
        "a.json",
        b"[0,1,2,3,4,1" + b"0" * 400 + b"]",
        "",
        ": entry 5: label 'a number of more than 20 digits' is neither a class number nor a class name",
    ),
    "json monstrous": ("a.json", b"[1" + b"0" * 5000 + b"]", "", ": Exceeds the limit (4300 digits)"),
    "PLC of 45,000": (
        "a.json",
        b'{"noise_labels": [0, 1, 2]}',
        "",
        ": noise_labels: 3 labels, expected 6; the rest is a validation set and the file does not say"
        " which samples that is, so it cannot be used",
    ),
    "json in another order": (
        "a.json",
        json.dumps({"labels": GIVEN, "clean_label": TRUE[::-1].tolist()}).encode(),
        "",
        ": clean_label: entry 0 is 9 where the data set has 0 (6 of 6 differ): the file is in another order",
    ),
    # NumPy
    "not npy": ("a.npy", b"[1, 2, 3]", "", ": not a NumPy file, or truncated (the magic string is not correct"),
    "npy header only": ("a.npy", npy(np.array(GIVEN))[:40], "", ": not a NumPy file, or truncated"),
    "npy truncated": (
        "a.npy",
        npy(np.array(GIVEN))[:-8],
        "",
        ": not a NumPy file, or truncated (EOF: reading array data, expected 48 bytes got 40)",
    ),
    "npy too much": (
        "a.npy",
        npy(np.array(GIVEN)) + b"x",
        "",
        ": 1 bytes after the array of shape (6,); save it again",
    ),
    "npy version": (
        "a.npy",
        b"\x93NUMPY\x03\x00" + npy(np.array(GIVEN))[8:],
        "",
        ": not a NumPy file, or truncated (EOF: reading array header",
    ),
    "npy floats": ("a.npy", npy(np.array([0.0, np.nan, 1, 2, 3, 4])), "", ": entry 1: no label (empty, 1 row in all)"),
    "npy NaN": ("a.npy", npy(np.array([np.nan] * 6)), "", ": entry 0: no label (empty, 6 rows in all)"),
    "npy bools": (
        "a.npy",
        npy(np.zeros(6, bool)),
        "",
        ": entry 0: label 'False' is neither a class number nor a class name",
    ),
    "npy 2-d": ("a.npy", npy(np.zeros((6, 1), int)), "", ": holds no list of labels"),
    "npy text": (
        "a.npy",
        npy(np.array(["a"] * 6)),
        "",
        ": entry 0: label 'a' is neither a class number nor a class name",
    ),
    "npy structured": ("a.npy", npy(np.zeros(6, [("a", int)])), "", ": holds [('a', '<i8')], expected labels"),
    "CIFAR-N ordered": (
        "CIFAR-10_human_ordered.npy",
        npy(np.array({"clean_label": TRUE}, dtype=object)),
        "",
        ": "
        "it holds a pickled object, which is not read; CIFAR-N's *_human_ordered.npy are in the order of TFDS, not in"
        " that of the data set: use CIFAR-10_human.pt or CIFAR-100_human.pt with noise.key instead",
    ),
    "not npz": ("a.npz", b"PK\x03\x04junk", "", ": not a .npz file, or damaged (File is not a zip file)"),
    "npz truncated": ("a.npz", npz(labels=np.array(GIVEN))[:-30], "", ": not a .npz file, or damaged"),
    "npz nothing": ("a.npz", npz(seed=3), "", ": holds no list of labels"),
    "npz several": ("a.npz", npz(x=TRUE, y=TRUE), "", ": holds several lists, set noise.key to one of x, y"),
    "npz wrong key": ("a.npz", npz(labels=TRUE, y=TRUE), "z", ": no 'z' in it (noise.key); it holds labels, y"),
    "npz object labels": (
        "a.npz",
        npz(label=np.array([None, {}], object), index=TRUE),
        "",
        ": label: it holds a pickled object, which is not read",
    ),
    "npz bomb": ("a.npz", npz(labels=np.zeros(10**6, int)), "", ": labels: 8,000,128 bytes, too large for 6 labels"),
    "npz in another order": (
        "a.npz",
        npz(given=np.array(GIVEN), trusted=np.array([0, 1, 2, 3, 9, 4])),
        "",
        ": trusted: entry 4 is 9 where the data set has 4 (2 of 6 differ): the file is in another order than",
    ),
    # CSV
    "csv text": (
        "a.csv",
        b"\xff\xfe1\x00\n",
        "",
        ":1: not text in UTF-16 (byte 4: 0x0a); save the file as UTF-8 (in Excel: CSV UTF-8)",
    ),
    "csv blank": ("a.csv", b"\n\n", "", ": no rows; write one row per image"),
    "csv header only": ("a.csv", b"label\n", "", ": a header but no rows; write one row per image"),
    "csv quote": ("a.csv", b'label\n"1\n', "", ":2: not a table (unexpected end of data); check the quotes"),
    "csv short line": (
        "a.csv",
        text("index,label", "0,1", "2"),
        "",
        ":3: 1 fields, expected 2 (index, label); complete the line or delete it",
    ),
    "csv nan": ("a.csv", text("0", "1", "nan", "3", "4", "5"), "", ":3: no label ('nan', 1 row in all)"),
    "csv empty field": ("a.csv", text(*INDEXED[:5], "10,"), "", ":6: no label (empty, 1 row in all)"),
    "csv range": ("a.csv", text(*INDEXED[:5], "10,10"), "", ":6: label 10 is outside 0..9; use the classes of made up"),
    "csv unknown index": (
        "a.csv",
        text(*INDEXED[:5], "11,1"),
        "",
        ":6: '11' is no training image's index; correct the index",
    ),
    "csv unknown path": (
        "a.csv",
        text("path,label", *PATHS[:5], "train/9.png,1"),
        "",
        ":7: 'train/9.png' is no training image's path (1 in all); write paths as 'train/00000'",
    ),
    "csv twice": (
        "a.csv",
        text(*INDEXED, "4,1"),
        "",
        ":7: '4' again, with '1'; line 3 gives it '2'; keep one of the rows",
    ),
    "csv missing": ("a.csv", text(*INDEXED[:4]), "", ": no row for 2 training samples ('8'); add their labels"),
    "csv columns": (
        "a.csv",
        text("1,2,3", "1,2,3"),
        "",
        ":1: 3 columns and no header; name the columns: path or index, label",
    ),
    "csv same names": ("a.csv", text("label,label", "1,2"), "", ":1: column 'label' occurs twice; rename one of them"),
    "csv two columns of labels": (
        "a.csv",
        text("a,b", *["1,2"] * 6),
        "",
        ":1: several columns (a, b); set noise.key to that of the labels",
    ),
    "csv in another order": (
        "a.csv",
        text("label,true_label", *(f"{k},{k}" for k in GIVEN)),
        "",
        ":7: true_label is 5 where the data set has 9 (1 of 6 differ): the file is in another order than the data set",
    ),
    # torch
    "not pt": ("a.pt", b"junk", "", ": not a file of torch.save in its zip form, or truncated"),
    "pt truncated": ("a.pt", pt(CIFAR_N)[:-200], "", ": not a file of torch.save in its zip form, or truncated"),
    "pt no key": (
        "a.pt",
        pt(CIFAR_N),
        "",
        ": holds several lists, set noise.key to one of clean_label, aggre_label, worse_label",
    ),
    "pt wrong key": (
        "a.pt",
        pt({"clean_label": TRUE, "noisy_label": np.array(GIVEN)}),
        "aggre_label",
        ": no 'aggre_label' in it (noise.key); it holds clean_label, noisy_label",
    ),
    "pt tensor": ("a.pt", pt(torch.arange(6)), "", ": holds Tensor, expected a dict of label lists"),
    "pt huge view": (
        "a.pt",
        pt({"x": torch.zeros(1, dtype=int).expand(10**15)}),
        "",
        ": x: 1,000,000,000,000,000 labels, expected 6",
    ),
    "pt without content": ("a.pt", pt({"x": torch.zeros(6, device="meta")}), "", ": holds no list of labels"),
    "pt other class": (
        "a.pt",
        pt({"x": np.ma.masked_array([1])}),
        "",
        ": not a data file that is safe to read: Unsupported global: GLOBAL numpy.ma.core._mareconstruct was not",
    ),
    "pt in TFDS order": (
        "a.pt",
        pt({**CIFAR_N, "clean_label": TRUE[[1, 0, 2, 3, 4, 5]]}),
        "worse_label",
        ": clean_label: entry 0 is 1 where the data set has 0 (2 of 6 differ): the file is in another order than",
    ),
    "pt object array": (
        "a.pt",
        pt({"x": np.array([None, 1], object)}),
        "x",
        ": not a data file that is safe to read: an array of type 'O8', where only plain numbers are read",
    ),
    # files
    "unknown extension": (
        "labels.xlsx",
        b"1\n",
        "",
        ": unknown kind of label file; use .json, .npy, .npz, .pt, .csv, .tsv, .parquet or .txt",
    ),
    "pickle": (
        "labels.pkl",
        b"N.",
        "",
        ": unknown kind of label file; use .json, .npy, .npz, .pt, .csv, .tsv, .parquet or .txt",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_files(dataset: Dataset, tmp_path: Path, case: str) -> None:
    name, content, key, message = BAD[case]
    assert fails(tmp_path, dataset, name, content, key).startswith(message)


def test_torch_file_that_would_run_a_command(dataset: Dataset, tmp_path: Path, bomb: Any) -> None:
    message = fails(tmp_path, dataset, "a.pt", pt({"x": bomb}), "x")
    assert message.startswith(": not a data file that is safe to read: Trying to load unsupported GLOBAL posix.system")
    assert not bomb.mark.exists()


def test_numpy_file_that_would_run_a_command(dataset: Dataset, tmp_path: Path, bomb: Any) -> None:
    message = fails(tmp_path, dataset, "a.npy", npy(np.array([bomb], object)))
    assert message.startswith(": it holds a pickled object, which is not read")
    assert not bomb.mark.exists()


def test_pickle_called_npz(dataset: Dataset, tmp_path: Path, bomb: Any, pickle2: Any) -> None:
    assert fails(tmp_path, dataset, "a.npz", pickle2(bomb)).startswith(": not a .npz file")
    assert not bomb.mark.exists()


def test_large_files_are_not_read(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcpc.data.labels.table_reader.MAX_BYTES", 10)
    assert fails(tmp_path, dataset, "a.json", b"[0,1,2,3,4,5]") == (
        ": 13 bytes is too large for labels; split the file"
    )


def test_large_content_is_not_unpacked(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcpc.data.labels.array_reader.MAX_BYTES", 100)
    assert fails(tmp_path, dataset, "a.pt", pt(CIFAR_N)).endswith("bytes unpacked, too large for a label file")


def test_torch_scripts_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("a/constants.pkl", b"N.")
        archive.writestr("a/version", b"3")
    assert fails(tmp_path, dataset, "a.pt", buffer.getvalue()).startswith(
        ": not a data file that is safe to read: damaged"
    )
