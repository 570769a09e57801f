"""NaN and infinity in any learned part: the part is restored, or the run ends with one line; never a traceback."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_run import metrics, run, small_config, weights

from fastcpc.cleaner import prototypes, registry
from fastcpc.cleaner.base import Cleaner, CleanerInput, CleanerResult
from fastcpc.cli import clean, report
from fastcpc.config.schema import Config
from fastcpc.engine import launch, train_epoch
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.errors import RunError


def tiny(folder: Path, kind: str, lr: float = 0.02, precision: Any = "fp32", **cleaner: Any) -> Config:
    """Three epochs of at most four steps; the prototypes partition the data from the second epoch on."""
    config = small_config(
        folder,
        kind,
        train={"lr": lr, "epochs": 3, "lr_drop_epoch": 3},
        cleaner={"warmup": 0.0, **cleaner},
        cpc={"passes": 1, "embedding_dim": 16},
        data={"subset": 120},
        semisup={"batches_per_epoch": 3},
    )
    return replace(config, precision=precision)


def without_true_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = launch.load_data

    def load_data(*args: Any) -> Any:
        dataset, labels = honest(*args)
        return dataset, replace(labels, trusted=None, partly=None)

    monkeypatch.setattr(launch, "load_data", load_data)


def assert_all_finite(folder: Path) -> None:
    """Networks, heads and both optimisers of the last checkpoint."""
    state = load(find_checkpoint(folder, "latest"))[1]
    momentum = [
        entry["momentum_buffer"]
        for member in state["members"]
        for name in ("optimizer", "cpc_optimizer")
        for entry in member[name]["state"].values()
        if entry.get("momentum_buffer") is not None
    ]
    tensors = [value for network in weights(folder) for value in network.values()]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in [*tensors, *momentum])


@pytest.mark.parametrize(
    ("lr", "precision", "truth"),
    [(1e-3, "bf16", False), (30.0, "fp32", True), (1e3, "bf16", False), (1e6, "fp32", True)],
)
@pytest.mark.parametrize("kind", ["none", "gmm_agn", "gmm_awr", "cpc_agn", "cpc_awr", "cpc_only"])
def test_no_learning_rate_gives_a_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    lr: float,
    precision: str,
    truth: bool,
) -> None:
    if not truth:
        without_true_labels(monkeypatch)
    folder = tmp_path / "run"
    summary, said = None, "train.lr"
    try:
        summary = run(tiny(folder, kind, lr, precision))
    except RunError as error:
        said = str(error)
    assert "train.lr" in said and "\n" not in said
    assert_all_finite(folder)
    code = clean.main([str(folder), "--out", str(tmp_path / "suspects.csv")])
    assert code == (0 if (folder / "clean_probabilities.parquet").exists() else 2), capsys.readouterr().err
    if summary is not None:
        assert code == 0 and summary["finished"]
        table = pq.read_table(folder / "clean_probabilities.parquet")
        assert np.isfinite(table["clean_probability"].to_numpy()).all()


@pytest.mark.parametrize("part", ["prototypes", "momentum"])
def test_prototypes_that_become_nan_are_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    """The head and its momentum stay as they were, one line per network says so, and the files can be used."""
    honest, kept = prototypes.train_prototypes, []

    def ruined(network: Any, optimizer: Any, *args: Any, **options: Any) -> None:
        kept.append((network, {name: value.clone() for name, value in network.head.state_dict().items()}))
        honest(network, optimizer, *args, **options)
        if part == "prototypes":
            network.prototypes.data[3] = torch.nan
        else:
            optimizer.state[network.prototypes]["momentum_buffer"][3] = torch.inf

    without_true_labels(monkeypatch)
    monkeypatch.setattr(prototypes, "train_prototypes", ruined)
    folder = tmp_path / "run"
    with caplog.at_level(logging.WARNING, "fastcpc"):
        assert run(tiny(folder, "cpc_awr"))["finished"]
    for network, before in kept:
        assert all(torch.equal(value, before[name]) for name, value in network.head.state_dict().items())
    assert_all_finite(folder)
    for network in (1, 2):
        line = f"epoch 1: network {network}: its prototypes became NaN or inf and are restored (lower cpc.lr"
        assert caplog.text.count(line) == 1
    assert report.main([str(folder), "--out", str(tmp_path / "report.html")]) == 0
    assert clean.main([str(folder), "--out", str(tmp_path / "suspects.csv")]) == 0


@pytest.mark.parametrize("score", ["after_update", "before_update"])
def test_scores_that_overflow_restore_a_finite_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, score: Any
) -> None:
    honest = prototypes.train_prototypes

    def ruined(network: Any, *args: Any, **options: Any) -> None:
        honest(network, *args, **options)
        network.prototypes.data.mul_(1e30)
        network.projector.weight.data.mul_(-1e30)

    monkeypatch.setattr(prototypes, "train_prototypes", ruined)
    config = tiny(tmp_path / "run", "cpc_awr")
    with caplog.at_level(logging.WARNING, "fastcpc"):
        run(replace(config, cpc=replace(config.cpc, score=score)))
    assert "its prototypes became NaN or inf and are restored" in caplog.text
    assert all(bool((network["head.prototypes"].abs() < 1e3).all()) for network in weights(tmp_path / "run"))


class Broken(Cleaner):
    """A cleaner whose probabilities of network 2 are NaN for one sample."""

    name = "broken"

    def clean(self, data: CleanerInput) -> CleanerResult:
        prob_N = torch.linspace(0, 1, len(data.labels_N))
        if data.number == 2:
            prob_N[7] = torch.nan
        return CleanerResult(prob_N)


@pytest.mark.parametrize("kind", [("broken",), ("gmm_agn", "broken")])
def test_a_cleaner_that_returns_nan_is_replaced(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, kind: tuple[str, ...]
) -> None:
    """By the cleaner before it; without one, network 1 trains on all labels."""
    registry.register_cleaner("broken", Broken, kind)
    request.addfinalizer(lambda: registry.unregister_cleaner("broken"))
    with caplog.at_level(logging.WARNING, "fastcpc"):
        assert run(tiny(tmp_path / "run", "broken"))["finished"]
    table = pq.read_table(tmp_path / "run" / "clean_probabilities.parquet")
    assert table["clean_probability"].null_count == 0
    said = "clean probabilities of broken are NaN or infinite"
    if len(kind) > 1:
        assert f"network 2: {said} (lower train.lr); the cleaner before it decides in this epoch" in caplog.text
        assert np.array_equal(table["q_broken_2"].to_numpy(), table["q_gmm_2"].to_numpy())
    else:
        assert f"network 1: {said} (lower train.lr); it trains on all labels" in caplog.text
        assert metrics(tmp_path / "run")[-1]["labelled"][0] == 120


@pytest.mark.parametrize(
    ("ruin", "part"),
    [
        (lambda own: own.network.classifier.bias.data.fill_(torch.inf), "weights"),
        (lambda own: own.network.backbone.state_dict()[statistics(own)].fill_(torch.nan), "BatchNorm statistics"),
        (lambda own: own.network.head.prototypes.data.fill_(torch.nan), "prototype head"),
        (lambda own: next(iter(own.optimizer.state.values()))["momentum_buffer"].fill_(torch.inf), "momentum"),
    ],
)
def test_the_part_that_broke_is_named_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ruin: Any, part: str
) -> None:
    honest = train_epoch.warm_up

    def ruined(own: Any, *args: Any, **options: Any) -> int:
        steps = honest(own, *args, **options)
        if own.number == 2:
            ruin(own)
        return steps

    monkeypatch.setattr(train_epoch, "warm_up", ruined)
    with caplog.at_level(logging.WARNING, "fastcpc"):
        assert run(tiny(tmp_path / "run", "cpc_awr"))["finished"]
    assert (
        f"epoch 0, network 2: {part} became NaN or infinite; the network and its optimiser are restored" in caplog.text
    )
    assert_all_finite(tmp_path / "run")


def statistics(own: Any) -> str:
    return next(name for name in own.network.backbone.state_dict() if name.endswith("running_var"))
