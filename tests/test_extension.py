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
from fastcpc.config.load import load_config
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.registry import DatasetSpec, register_dataset, unregister_dataset
from fastcpc.data.test_transform import InferenceTransform
from fastcpc.engine.outputs.score_file import LAST
from fastcpc.errors import InputError
from fastcpc.models.registry import register_backbone, unregister_backbone
from fastcpc.report.html.class_figures import probability_figure
from fastcpc.report.html.curves import active_auc, curves
from fastcpc.report.results.run import read_run

MEAN, STD = (0.3, 0.3, 0.3), (0.2, 0.2, 0.2)


class SmallLoss:
    """The clean probability is 1 minus the normalised loss."""

    name = "small_loss"
    title = "one minus the loss"
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
    register_cleaner("gmm_then_small_loss", SmallLoss, ("gmm_awr", "small_loss"))
    register_backbone("flat")(flat_network)
    yield
    unregister_dataset("colours")
    unregister_cleaner("small_loss")
    unregister_cleaner("gmm_then_small_loss")
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


@pytest.mark.usefixtures("registered")
def test_figures_and_metrics_have_the_registered_cleaner(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, "gmm_then_small_loss", train={"epochs": 3, "lr_drop_epoch": 2}, cleaner={"warmup": 0.0}
    )
    assert run(config)["finished"]
    last = metrics(tmp_path)[-1]
    assert len(last["kl_gmm_small_loss"]) == len(last["agreement_gmm_small_loss"]) == 2
    drawn = read_run(tmp_path)
    figures = {figure.key: figure for figure in curves(drawn)[0]}
    auc = figures["auc"].text
    assert "mixture" in auc and "one minus the loss" in auc and "one minus the loss" in figures["auc"].svg
    assert "by the mixture" in figures["kl"].caption and "by the one minus the loss" in figures["kl"].caption
    assert "agreement" in figures
    both = probability_figure(drawn, drawn.scores(LAST))
    assert both is not None and "clean only by the mixture" in both.text and "by the one minus the loss" in both.svg
    assert np.isfinite(active_auc(drawn)[1:]).all()


def test_settings_use_the_facts_of_a_registered_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = names.DatasetTraits("arrays", needs_root=False, pixels=16, noise_kinds=("asym_superclass",))
    monkeypatch.setitem(names.DATASETS, "colours", facts)
    assert load_config([], ["data.name=colours", "noise.kind=asym_superclass", "noise.rate=0.2"])
    with pytest.raises(InputError, match=r"asym: is not defined for colours; choose asym_superclass \(inside"):
        load_config([], ["data.name=colours", "noise.kind=asym", "noise.rate=0.2"])
    with pytest.raises(InputError, match="digits_cnn: is for images of up to 8 pixels, and colours has 16"):
        load_config([], ["data.name=colours", "model.name=digits_cnn"])
