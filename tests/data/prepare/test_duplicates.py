"""Exact duplicates between train and test: one note with counts and names."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_sets import imagefolder

from fastcpc.cli import prepare
from fastcpc.data.dataset import Dataset
from fastcpc.data.datasets.digits import load_digits_dataset
from fastcpc.data.prepare.duplicates import array_duplicates_note, duplicates_note


def test_files_with_equal_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = imagefolder(tmp_path / "x", {"train/a": 3, "train/b": 3, "test/a": 3, "test/b": 3})
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        path.write_bytes(path.read_bytes() + bytes([number]))
    assert prepare.main(["imagefolder", "--root", str(root)]) == 0
    assert "test images are training images" not in capsys.readouterr().out
    for name in ("a", "b"):
        (root / "test" / name / "001.jpg").write_bytes((root / "train" / name / "000.jpg").read_bytes())
    (root / "test" / "a" / "002.jpg").write_bytes((root / "test" / "a" / "000.jpg").read_bytes())  # inside one part
    assert prepare.main(["imagefolder", "--root", str(root)]) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if "test images are training images" in line]
    assert found == [
        "  note: 2 of 6 test images are training images, too (equal bytes): test/a/001.jpg = train/a/000.jpg, "
        "test/b/001.jpg = train/b/000.jpg; the test accuracy is too high, remove them from one part"
    ]


def test_images_with_equal_pixels() -> None:
    dataset = load_digits_dataset()
    test, train = dataset.tests["test"], dataset.train
    pixels = test.pixels.clone()
    pixels[5] = train.pixels[9]
    note = array_duplicates_note(_with_test(dataset, pixels))
    assert note.startswith("1 of 360 test images are training images, too (equal pixels): ")
    assert f"{test.names[5]} = {train.names[9]};" in note
    assert array_duplicates_note(dataset) == ""


def _with_test(dataset: Dataset, pixels: torch.Tensor) -> Dataset:
    return replace(dataset, tests={"test": replace(dataset.tests["test"], pixels=pixels)})


def test_the_note_names_the_first_pairs() -> None:
    digests = {f"a{number}": bytes([number]) for number in range(5)}
    note = duplicates_note(digests, {f"t{number}": bytes([number]) for number in range(5)} | {"u": b""}, "x")
    assert note.startswith("5 of 6 test images") and "t0 = a0, t1 = a1, t2 = a2, ...;" in note
    assert duplicates_note({"a": b""}, {"t": b""}, "x") == ""
