"""A data set, a cleaner and a network of one's own, registered together from a script, without a change in fastcpc/."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import metrics, run, small_config
from torch import nn

from fastcpc.cleaner.base import CleanerInput, CleanerResult
from fastcpc.cleaner.registry import register_cleaner, unregister_cleaner
from fastcpc.cli import clean as clean_command
from fastcpc.cli import report as report_command
from fastcpc.config import names
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.registry import DatasetSpec, register_dataset, unregister_dataset
from fastcpc.data.test_transform import InferenceTransform
from fastcpc.models.registry import register_backbone, unregister_backbone

MEAN, STD = (0.3, 0.3, 0.3), (0.2, 0.2, 0.2)


class SmallLoss:
    """The clean probability is 1 minus the normalised loss."""

    name = "small_loss"
    uses_loss_history = False
    similarity = None

    def clean(self, data: CleanerInput) -> CleanerResult:
        return CleanerResult(1 - data.values_N)


def colours(num_samples: int, seed: int) -> ArraySplit:
    """Images uint8 (N, 3, 8, 8) with one bright channel per class."""
    labels = np.arange(num_samples) % 3
    pixels = np.random.default_rng(seed).integers(0, 120, (num_samples, 3, 8, 8), np.uint8)
    pixels[np.arange(num_samples), labels] += 80
    index = np.arange(num_samples)
    return ArraySplit(torch.from_numpy(pixels), labels, index, tuple(f"colours/{row}" for row in index))


def load_colours(_: object) -> Dataset:
    weak = WeakPolicy(flip=True, padding=1)
    return Dataset("colours", ("red", "green", "blue"), colours(240, 1), {"test": colours(60, 2)}, MEAN, STD, weak)


def flat_network(in_channels: int, image_size: int, width: int) -> nn.Module:
    pixels = in_channels * image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU())


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers the three of this file as a user's script does, for one test."""
    monkeypatch.setattr(names, "BACKBONES", [*names.BACKBONES, "flat"])
    monkeypatch.setitem(names.DATASETS, "colours", names.DatasetTraits("arrays", needs_root=False))
    register_dataset(DatasetSpec("colours", load_colours, lambda _: InferenceTransform(3, 8, 8, MEAN, STD)))
    register_cleaner("small_loss", SmallLoss)
    register_backbone("flat")(flat_network)
    yield
    unregister_dataset("colours")
    unregister_cleaner("small_loss")
    unregister_backbone("flat")


@pytest.mark.usefixtures("registered")
def test_registered_data_set_cleaner_and_network_train_and_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = small_config(
        folder,
        "small_loss",
        data={"name": "colours"},
        model={"name": "flat"},
        train={"epochs": 2, "lr_drop_epoch": 2},
        cleaner={"warmup": 0.0},
    )
    assert run(config)["finished"]
    last = metrics(folder)[-1]
    assert last["test_top1"] > 60  # by chance: 33
    assert all(auc > 0.6 for auc in last["auc_small_loss"])

    assert report_command.main([str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "colours/" in page and "small_loss" in page
    assert clean_command.main([str(folder), "--out", str(tmp_path / "suspects.csv")]) == 0
    with (tmp_path / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 20 and rows[0]["path"].startswith("colours/") and "q_small_loss_1" in rows[0]
