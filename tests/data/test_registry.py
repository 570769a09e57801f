"""The registry of data sets: its names are those of the settings, and a data set of a test trains and is reported."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import metrics, run, small_config

from fastcpc.cli import clean, report
from fastcpc.config import names
from fastcpc.config.load import load_config
from fastcpc.config.names import DatasetTraits
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.registry import DatasetSpec, register_dataset, registered_datasets, unregister_dataset
from fastcpc.data.test_transform import InferenceTransform

SIZE, NUM_CLASSES = 8, 3


def split(num_samples: int, seed: int) -> ArraySplit:
    """Noise with one bright channel per class, uint8 (N, 3, 8, 8)."""
    source = np.random.default_rng(seed)
    labels = np.arange(num_samples) % NUM_CLASSES
    pixels = source.integers(0, 120, (num_samples, 3, SIZE, SIZE), np.uint8)
    pixels[np.arange(num_samples), labels] += 80
    index = np.arange(num_samples, dtype=np.int64)
    return ArraySplit(torch.from_numpy(pixels), labels, index, tuple(f"toy/{row}" for row in index))


def load_toy(_: object = None) -> Dataset:
    return Dataset(
        name="toy", class_names=("red", "green", "blue"), train=split(240, 1), tests={"test": split(60, 2)},
        mean=(0.3, 0.3, 0.3), std=(0.2, 0.2, 0.2), weak=WeakPolicy(flip=True, padding=1),
    )  # fmt: skip


SPEC = DatasetSpec(
    "toy",
    load_toy,
    lambda _: InferenceTransform(3, SIZE, SIZE, (0.3, 0.3, 0.3), (0.2, 0.2, 0.2)),
    terms="made by a test",
)


def test_names_and_kinds_equal_those_of_the_settings() -> None:
    kinds = {name: "arrays" if spec.list_files is None else "images" for name, spec in registered_datasets().items()}
    kinds["embeddings"] = "embeddings"  # arrays of another kind
    assert kinds == {name: traits.kind for name, traits in names.DATASETS.items()}


def test_unknown_name_or_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"toy: add the name to DATASETS of fastcpc\.config\.names"):
        register_dataset(SPEC)
    monkeypatch.setitem(names.DATASETS, "toy", DatasetTraits("images"))
    with pytest.raises(ValueError, match="says images, not arrays"):
        register_dataset(SPEC)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The data set of this file, known as toy for one test."""
    monkeypatch.setitem(names.DATASETS, "toy", DatasetTraits("arrays", needs_root=False))
    register_dataset(SPEC)
    yield "toy"
    unregister_dataset("toy")


def test_registered_data_set_trains_and_is_reported(toy: str, tmp_path: Path) -> None:
    assert load_config([], [f"data.name={toy}"]).data.name == toy
    folder = tmp_path / "run"
    config = small_config(
        folder, data={"name": toy}, model={"name": "small_cnn"}, train={"epochs": 2}, cleaner={"warmup": 0.0}
    )
    assert run(config)["finished"]
    assert metrics(folder)[-1]["test_top1"] > 50  # by chance: 33
    assert report.main([str(folder)]) == 0
    assert "toy/" in (folder / "report.html").read_text()
    suspects = tmp_path / "suspects.csv"
    assert clean.main([str(folder), "--out", str(suspects)]) == 0
    header, *lines = suspects.read_text().splitlines()
    assert "toy/" in lines[0] and len(lines) > 20 and "given" in header
