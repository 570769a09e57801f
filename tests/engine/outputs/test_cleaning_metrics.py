"""Metrics of a cleaning where trusted labels are known of some samples only."""

from pathlib import Path
from types import SimpleNamespace

import image_sets
import numpy as np
import torch

from fastcpc.cleaner.partition import Partition
from fastcpc.config.schema import DataConfig, NoiseConfig
from fastcpc.data.labels.noise import make_labels, take_subset
from fastcpc.data.registry import load_dataset
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.outputs.cleaning_metrics import cleaning_metrics, loss_metrics


def test_metrics_use_samples_with_a_true_label_only() -> None:
    draws = np.random.default_rng(0)
    given = draws.integers(0, 3, 60)
    trusted = np.where(draws.random(60) < 0.6, given, (given + 1) % 3)
    some = np.flatnonzero(draws.random(60) < 0.5)
    partly = np.full(60, -1)
    partly[some] = trusted[some]
    q = tuple(torch.rand(60, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    whole = Cleaning({"gmm": q}, q, [Partition(prob > 0.5, prob) for prob in q])
    part = Cleaning({"gmm": (q[0][some], q[1][some])}, q, [Partition(prob[some] > 0.5, prob[some]) for prob in q])
    assert cleaning_metrics(whole, given, partly, 0.5) == cleaning_metrics(part, given[some], trusted[some], 0.5)
    losses = SimpleNamespace(networks=[SimpleNamespace(loss_N=q[0])])
    of_some = SimpleNamespace(networks=[SimpleNamespace(loss_N=q[0][some])])
    expected = loss_metrics(of_some, given[some], trusted[some], 3)  # type: ignore[arg-type]
    assert loss_metrics(losses, given, partly, 3) == expected  # type: ignore[arg-type]


def test_true_labels_of_a_part_of_clothing1m_are_used(tmp_path: Path) -> None:
    dataset = load_dataset(DataConfig(name="clothing1m", root=str(image_sets.clothing1m(tmp_path))))
    labels = make_labels(dataset, NoiseConfig(), 1)
    assert labels.trusted is None and labels.known is not None
    assert labels.known.tolist() == [-1, -1, -1, 12, -1, -1]
    assert labels.actual_rate == float(labels.given[3] != 12)
    kept, few = take_subset(dataset, labels, 6, 1)
    assert few.known is not None and few.known.tolist() == labels.known.tolist() and len(kept.train) == 6
