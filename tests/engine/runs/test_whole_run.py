"""Whole runs of a few seconds: every cleaner, the files it leaves, and bit-identical results of two runs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_run import assert_same_run, metrics, run, small_config, weights

from fastcpc.config.load import load_config
from fastcpc.data.loaders.base import Batch
from fastcpc.data.loaders.memory import MemoryLoader
from fastcpc.engine import launch, train_epoch, trainer
from fastcpc.engine.train_epoch import has_warmup_penalty

KINDS = ("none", "gmm_agn", "gmm_awr", "cpc_agn", "cpc_awr", "cpc_only", "confusion", "cpc_confusion")
CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("kind", KINDS)
def test_every_cleaner_finishes_and_writes_its_files(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    summary = run(small_config(folder, kind))
    assert summary["finished"] is True and 0 <= summary["final_top1"] <= 100
    assert json.loads((folder / "summary.json").read_text())["final_top1"] == summary["final_top1"]
    lines = metrics(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert [line["phase"] for line in lines] == ["warmup", "train", "train", "train"]
    assert [line["lr"] for line in lines] == [0.02, 0.02, 0.02, 0.002]
    assert lines[0]["labelled"] == [240, 240]
    last = lines[-1]
    has_mixture = kind.split("_")[-1] in ("agn", "awr")
    assert (last["auc_gmm"] is None) == (not has_mixture)
    assert (last["auc_cpc"] is None) == (not kind.startswith("cpc"))
    assert (last["prototype_top1"] is None) == (not kind.startswith("cpc"))
    table = pq.read_table(folder / "clean_probabilities.parquet").to_pydict()
    with np.load(folder / "labels.npz", allow_pickle=False) as labels:
        assert table["given_label"] == labels["given"].tolist() and table["true_label"] == labels["trusted"].tolist()
        assert table["index"] == labels["source_index"].tolist() == sorted(set(table["index"]))
    assert len(table["index"]) == 240
    assert (table["q_gmm_1"][0] is None) == (not has_mixture)
    assert (table["q_cpc_2"][0] is None) == (not kind.startswith("cpc"))
    assert all(0 <= value <= 1 for value in table["clean_probability"])
    assert table["is_clean"] == [value > 0.5 for value in table["clean_probability"]]


def test_clean_probability_is_the_mean_over_networks_of_the_active_cleaner(tmp_path: Path) -> None:
    for kind, names in (("gmm_awr", ("q_gmm_1", "q_gmm_2")), ("cpc_awr", ("q_cpc_1", "q_cpc_2"))):
        run(small_config(tmp_path / kind, kind, train={"epochs": 3}))
        table = pq.read_table(tmp_path / kind / "clean_probabilities.parquet").to_pydict()
        expected = (np.array(table[names[0]]) + np.array(table[names[1]])) / 2
        np.testing.assert_allclose(table["clean_probability"], expected, rtol=1e-6)


def test_seed_determines_the_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(small_config(tmp_path / name))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    run(small_config(tmp_path / "other", run={"seed": 4}))
    assert metrics(tmp_path / "other") != metrics(tmp_path / "one")


def test_the_two_networks_differ(tmp_path: Path) -> None:
    run(small_config(tmp_path / "run", train={"epochs": 2}))
    first, second = weights(tmp_path / "run")
    trained = [name for name in first if name.endswith("weight") and first[name].ndim > 1]
    assert len(trained) >= 3
    for name in trained:  # uncorrelated, not only different
        pair = torch.stack([first[name].flatten(), second[name].flatten()])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.5, name


def test_true_labels_do_not_change_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the trusted training labels replaced by nonsense, the trained networks are bit-identical."""
    config = small_config(tmp_path / "true", train={"epochs": 3})
    run(config)
    honest = launch.load_data

    def blinded(*of):  # type: ignore[no-untyped-def]
        dataset, labels = honest(*of)
        labels.trusted[:] = 0
        dataset.train.labels[:] = 0
        return dataset, labels

    monkeypatch.setattr(launch, "load_data", blinded)
    run(small_config(tmp_path / "blind", train={"epochs": 3}))
    for a, b in zip(weights(tmp_path / "true"), weights(tmp_path / "blind"), strict=True):
        assert all((a[name] == b[name]).all() for name in a)


@pytest.mark.slow
def test_digits_accuracy_and_suspects_after_ten_epochs(tmp_path: Path) -> None:
    """Digits, half of the labels randomised, 10 epochs: far from a full run, and far above chance."""
    config = load_config(
        [CONFIGS / "digits_sym50.yaml"],
        [f"run.dir={tmp_path / 'run'}", "train.epochs=10", "cpc.passes=8", "model.width=16", "cpc.embedding_dim=64"],
    )
    summary = run(config)
    assert summary["final_top1"] > 88
    assert summary["suspected_precision"] > 0.9 and summary["suspected_recall"] > 0.9
    last = metrics(tmp_path / "run")[-1]
    assert min(last["auc_gmm"] + last["auc_cpc"]) > 0.95
    assert len(last["kl_gmm_cpc"]) == len(last["agreement_gmm_cpc"]) == 2


def test_bfloat16_keeps_weights_in_float32(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        config = small_config(tmp_path / precision, train={"epochs": 2})
        run(replace(config, precision=precision))  # type: ignore[arg-type]
    losses = [metrics(tmp_path / name)[0]["loss_total"] for name in ("fp32", "bf16")]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2)
    for network in weights(tmp_path / "bf16"):
        floats = [tensor for tensor in network.values() if tensor.is_floating_point()]
        assert all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in floats)
        # float32 values, not rounded to bfloat16
        assert any(not tensor.equal(tensor.bfloat16().float()) for tensor in floats)


@pytest.mark.parametrize(
    ("kind", "noise", "setting", "expected"),
    [
        ("cpc_awr", "sym", "auto", False),
        ("cpc_awr", "asym", "auto", True),
        ("cpc_awr", "file", "auto", True),
        ("cpc_awr", "sym", "always", True),
        ("cpc_awr", "asym", "never", False),
        ("none", "asym", "auto", False),
        ("none", "asym", "always", False),
    ],
)
def test_warmup_penalty_by_setting(kind: str, noise: str, setting: str, expected: bool) -> None:
    config = small_config(Path("unused"), kind, noise={"kind": noise}, train={"warmup_penalty": setting})
    assert has_warmup_penalty(config) is expected


def test_warmup_penalty_changes_the_loss(tmp_path: Path) -> None:
    for setting in ("always", "never"):
        run(small_config(tmp_path / setting, train={"warmup_penalty": setting, "epochs": 2}))
    with_penalty, without = (metrics(tmp_path / setting)[0]["loss_total"] for setting in ("always", "never"))
    assert max(with_penalty) < min(without) - 1  # the negative entropy of ten classes is near -2.3 at the start


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        ({}, [("weak",), ("test",), ("weak", "weak", "strong", "strong")]),
        ({"train": "weak"}, [("weak",), ("test",), ("weak", "weak")]),
        (
            {"warmup": "strong", "strong": "randaugment"},
            [("strong",), ("test",), ("weak", "weak", "strong", "strong")],
        ),
    ],
)
def test_views_of_each_stage(
    augment: dict[str, str], expected: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of first use is that of the stages. No two views of a batch are equal."""
    seen: list[tuple[str, ...]] = []
    honest = MemoryLoader.stream

    def noted(self: MemoryLoader, batches: Any, views: Any, *arguments: Any) -> Iterator[Batch]:
        seen.append(tuple(views))
        for batch in honest(self, batches, views, *arguments):
            assert len(batch.views) == len(views)
            assert not any(one.equal(other) for one, other in combinations(batch.views, 2))
            yield batch

    monkeypatch.setattr(MemoryLoader, "stream", noted)
    run(small_config(tmp_path / "run", train={"epochs": 2}, augment=augment))
    assert list(dict.fromkeys(seen)) == expected


@pytest.mark.parametrize("name", ["digits_sym80", "digits_asym40"])
def test_dry_run_runs_every_stage_and_writes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []
    pairs: list[tuple[Any, str]] = [(train_epoch, "warm_up"), (train_epoch, "semi_supervised")]
    pairs += [(trainer, "score_samples"), (trainer, "clean_labels"), (trainer, "evaluate")]
    for module, stage in pairs:
        honest = getattr(module, stage)

        def counted(*args: Any, honest: Any = honest, stage: str = stage, **options: Any) -> Any:
            calls.append(stage)
            return honest(*args, **options)

        monkeypatch.setattr(module, stage, counted)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", "fastcpc"):
        launch.dry_run(load_config([CONFIGS / f"{name}.yaml"], []))
    counts = {stage: calls.count(stage) for stage in sorted(set(calls))}
    assert counts == {"clean_labels": 3, "evaluate": 3, "score_samples": 3, "semi_supervised": 4, "warm_up": 2}
    assert "dry run: every stage works; nothing is kept" in caplog.text
    assert not list(tmp_path.iterdir())
