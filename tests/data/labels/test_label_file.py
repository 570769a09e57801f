"""Label files: every form by value, files that are none, and what labels by position need."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from label_bytes import CIFAR_N, GIVEN, INDEXED, PATHS, TRUE, fails, npy, npz, pt, text

from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.errors import InputError


@pytest.fixture
def dataset(dataset_of: Callable[..., Dataset]) -> Dataset:
    return dataset_of(TRUE)


GOOD = {
    "DivideMix list": ("0.5_sym.json", json.dumps(GIVEN).encode(), ""),
    "dict with one list": ("a.json", json.dumps({"mine": GIVEN, "note": "x", "seed": 3}).encode(), ""),
    "LongReMix PLC dict": ("a.json", json.dumps({"noise_labels": GIVEN}).encode(), ""),
    "dict with a key": ("a.json", json.dumps({"mine": GIVEN, "b": [1]}).encode(), "mine"),
    "npz labels": ("a.npz", npz(labels=np.array(GIVEN), seed=3, mode="sym"), ""),
    "UNICON npz": ("a.npz", npz(label=np.array(GIVEN), index=np.array([5, 2])), ""),
    "a run's labels.npz": (
        "labels.npz",
        npz(given=np.array(GIVEN), trusted=TRUE, class_names=np.array(["a"] * 10)),
        "",
    ),
    "npz with a key": ("a.npz", npz(x=np.array(GIVEN), y=TRUE), "x"),
    "npy": ("a.npy", npy(np.array(GIVEN, np.uint8)), ""),
    "npy big-endian": ("a.npy", npy(np.array(GIVEN, ">i4")), ""),
    "one label a line": ("a.csv", text(*map(str, GIVEN)), ""),
    "with a header": ("a.csv", text("label", *map(str, GIVEN), ""), ""),
    "BOM, CRLF and blanks": ("a.csv", b"\xef\xbb\xbflabel\r\n" + "\r\n".join(f" {k}" for k in GIVEN).encode(), ""),
    "index,label": ("a.csv", text("index,label", *INDEXED[::-1]), ""),
    "index,label without a header": ("a.csv", text(*INDEXED[::-1]), ""),
    "path,label": ("a.csv", text("path,label", *PATHS[3:], *PATHS[:3]), ""),
    "path,label without a header": ("a.csv", text(*PATHS[::-1]), ""),
    "quoted paths": ("a.csv", text(*(f'"{p.split(",")[0]}",{p.split(",")[1]}' for p in PATHS)), ""),
    "more columns": ("a.csv", text("index,path,given_label,q", *(f"9,{p},0.5" for p in PATHS)), ""),
    "csv with a key": ("a.csv", text("path,mine,b", *(f"{p},7" for p in PATHS)), "mine"),
    "CIFAR-N": ("CIFAR-10_human.pt", pt(CIFAR_N), "aggre_label"),
    "tensors and lists": (
        "a.pt",
        pt({"noisy_label": torch.tensor(GIVEN), "clean_label": TRUE.tolist()}),
        "noisy_label",
    ),
    "upper case": ("A.JSON", json.dumps(GIVEN).encode(), ""),
}


@pytest.mark.parametrize("case", GOOD)
def test_forms_by_value(dataset: Dataset, tmp_path: Path, case: str) -> None:
    name, content, key = GOOD[case]
    (tmp_path / name).write_bytes(content)
    labels = read_label_file(str(tmp_path / name), key, dataset)
    assert labels.dtype == np.int64
    assert labels.tolist() == GIVEN


def test_cifar_n_keys_pick_their_column(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pt(CIFAR_N))
    assert read_label_file(str(tmp_path / "a.pt"), "worse_label", dataset).tolist() == GIVEN[::-1]
    assert (read_label_file(str(tmp_path / "a.pt"), "clean_label", dataset) == TRUE).all()


def test_no_name(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"noise\.file is empty: noise.kind=file needs the path of a label file"):
        read_label_file("", "", dataset)


def test_missing_file(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.json: cannot be read \(No such file or directory\)"):
        read_label_file(str(tmp_path / "a.json"), "", dataset)


def test_folder(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"is a folder; noise.file must be a .json, .npy, .npz, .pt, .csv, .tsv, .parquet or .txt file"
    ):
        read_label_file(str(tmp_path), "", dataset)


def test_pipe(dataset: Dataset, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"a\.json: is not a file that can be read"):
        read_label_file(str(tmp_path / "a.json"), "", dataset)


def test_labels_by_position_need_the_published_order(dataset: Dataset, tmp_path: Path) -> None:
    shuffled = replace(dataset, published_order=False, name="cifar100")
    message = fails(tmp_path, shuffled, "a.json", json.dumps(GIVEN).encode())
    assert message.startswith(
        ": gives labels by position, but this copy of cifar100 is not in the published order; use a file"
    )
    assert "by position" in fails(tmp_path, shuffled, "a.csv", text("index,label", *INDEXED))
    # Labels by name, or with true labels that agree, are as good as ever.
    (tmp_path / "a.csv").write_bytes(text("path,label", *PATHS))
    assert read_label_file(str(tmp_path / "a.csv"), "", shuffled).tolist() == GIVEN
    (tmp_path / "a.npz").write_bytes(npz(given=np.array(GIVEN), trusted=TRUE))
    assert read_label_file(str(tmp_path / "a.npz"), "", shuffled).tolist() == GIVEN
