"""Runs with cleaner.guard=auto: correct labels stay in training, and wrong labels are found."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from image_run import coloured_images
from small_run import metrics, run, small_config, weights

from fastcpc.config.load import load_config

CONFIGS = Path(__file__).parents[3] / "configs"
# a small network on small images; everything else is the config for a user's own images
SMALL = (
    "model.name=small_cnn", "model.weights=", "model.width=16", "data.resize=28", "data.crop=24", "data.feed=torch",
    "data.workers=1", "cpc.embedding_dim=16", "train.epochs=8", "train.warmup_epochs=4", "train.lr_drop_epoch=6",
    "train.batch_size=8", "train.lr=0.01", "device=cpu", "precision=fp32", "run.seed=1",
)  # fmt: skip


CORRECT_LABELS = {"kind": "none", "rate": 0.0}


def test_guard_trains_as_without_a_cleaner_while_no_label_is_rejected(tmp_path: Path) -> None:
    """tau is so low that each label is predicted clean. The networks are bit-identical to plain training."""
    correct = {"noise": CORRECT_LABELS, "train": {"epochs": 3, "warmup_epochs": 2}}
    run(small_config(tmp_path / "none", "none", **correct))
    run(small_config(tmp_path / "guard", "confusion", cleaner={"guard": "auto", "tau": 1e-6}, **correct))
    assert metrics(tmp_path / "guard")[-1]["labelled"] == [240, 240]
    for plain, guarded in zip(weights(tmp_path / "none"), weights(tmp_path / "guard"), strict=True):
        for name, tensor in plain.items():
            assert torch.equal(tensor, guarded[name]), name


def test_trained_networks_keep_nearly_all_correct_labels(tmp_path: Path) -> None:
    """At most 12 of 240 correct labels are rejected (measured: 0 to 4 with three seeds)."""
    correct = {"noise": CORRECT_LABELS, "train": {"epochs": 21, "warmup_epochs": 20, "lr": 0.05}}
    run(small_config(tmp_path / "guard", "confusion", cleaner={"guard": "auto"}, **correct))
    assert min(metrics(tmp_path / "guard")[-1]["labelled"]) >= 228


def test_three_easy_classes_without_wrong_labels_keep_their_images(tmp_path: Path) -> None:
    """The config for a user's own images, unchanged. Without the guard half of the images are not predicted clean."""
    coloured_images(tmp_path / "images")
    folder = tmp_path / "run"
    data = (f"data.root={tmp_path / 'images'}", f"run.dir={folder}")
    summary = run(load_config([CONFIGS / "imagefolder.yaml"], [*SMALL, *data]))
    cleaned = [line for line in metrics(folder) if line["phase"] == "train"]
    assert len(cleaned) == 4
    for line in cleaned:  # a class has 14 of the 42 images
        assert min(line["labelled"]) >= 40 and line["test_top1"] == 100
    table = pq.read_table(folder / "clean_probabilities.parquet").to_pydict()
    given, is_clean = np.array(table["given_label"]), np.array(table["is_clean"])
    assert all(is_clean[given == k].mean() > 0.9 for k in range(3))
    assert summary["suspected"] == 0
