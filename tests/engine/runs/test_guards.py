"""A run whose data or numbers are not as the method expects says why and continues with a note."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import StopAfter, assert_same_run, metrics, run, small_config, weights

from fastcpc.cleaner.partition import Partition
from fastcpc.engine import cleaning, launch, train_epoch, trainer
from fastcpc.engine.learner import Learner
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import RunError


def test_clean_data_trains(tmp_path: Path) -> None:
    summary = run(small_config(tmp_path / "run", "cpc_awr", noise={"kind": "none", "rate": 0.0}))
    assert summary["finished"]
    assert metrics(tmp_path / "run")[-1]["auc_cpc"] == [None, None]  # nothing is noisy: no curve to speak of


def test_empty_partition_falls_back_to_warmup(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fastcpc"):
        run(small_config(tmp_path / "run", "cpc_awr", cleaner={"tau": 0.999999}))
    lines = metrics(tmp_path / "run")
    assert lines[-1]["labelled"] == [240, 240]
    assert "predicted clean, fewer than the 10 classes; it trains on all labels as in the warm-up" in caplog.text


def test_too_small_partition_keeps_the_last_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The mixture divides epoch 1; the prototypes, hardly trained at such a rate, hold nothing clean after it."""
    config = small_config(
        tmp_path / "run", "cpc_awr", cleaner={"tau": 0.9, "warmup": 0.25}, cpc={"passes": 1, "normalise": False},
        train={"lr": 1e-4},
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "fastcpc"):
        run(config)
    sizes = [line["labelled"] for line in metrics(tmp_path / "run")]
    assert sizes[1] == sizes[2] == sizes[3] != [240, 240]
    assert "it keeps its last good partition in this epoch" in caplog.text


def test_class_without_clean_samples_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = cleaning.co_divide

    def without_class_3(q_1: torch.Tensor, q_2: torch.Tensor, tau: float) -> Any:
        parts = honest(q_1, q_2, tau)
        given = torch.from_numpy(launch.load_data(config)[1].given)
        return [Partition((given != 3) & (given != 7), part.clean_prob_N) for part in parts]

    config = small_config(tmp_path / "run", "gmm_agn")
    monkeypatch.setattr(cleaning, "co_divide", without_class_3)
    with caplog.at_level(logging.WARNING, "fastcpc"):
        run(config)
    said = "network 1: no sample of class 3, 7 is predicted clean; a lower cleaner.tau or a class-aware cleaner"
    assert said in caplog.text


def test_unused_labels_and_large_batches_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fastcpc"):
        run(small_config(tmp_path / "run", "none", data={"subset": 12}, train={"epochs": 2, "warmup_epochs": 1}))
    assert "no training sample has the label" in caplog.text
    assert "train.batch_size=32 exceeds the 12 training samples" in caplog.text


def poison(monkeypatch: pytest.MonkeyPatch, when: Callable[[int, int], bool]) -> None:
    """Semi-supervised steps give NaN when ``when`` says so of (number of the step from 1, own network's identity)."""
    count, seen, honest = 0, [], train_epoch.semisup_loss

    def poisoned(own: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if id(own) not in seen:
            seen.append(id(own))
        losses = honest(own, *args)
        return losses._replace(total=losses.total * torch.nan) if when(count, 1 + seen.index(id(own))) else losses

    monkeypatch.setattr(train_epoch, "semisup_loss", poisoned)


def test_nan_rolls_the_pass_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison(monkeypatch, lambda count, number: count == 2)
    served: list[list[int]] = []
    honest = Learner.update

    def noted(own: Learner, losses: tuple[torch.Tensor, ...], index_B: torch.Tensor) -> None:
        if len(losses) > 1:
            served.append(index_B.tolist())
        honest(own, losses, index_B)

    monkeypatch.setattr(Learner, "update", noted)
    with caplog.at_level(logging.WARNING, "fastcpc"):
        summary = run(small_config(tmp_path / "run"))
    assert summary["finished"]
    lines = metrics(tmp_path / "run")
    assert lines[1]["loss_total"][0] is None and lines[1]["loss_total"][1] is not None
    assert all(value is not None for value in lines[2]["loss_total"])
    said = re.search(
        r"epoch 1, network 1: losses, weights, BatchNorm statistics, momentum became NaN or infinite \(first at step "
        r"1, whose batch holds the 64 samples ([\d, ]+), \.\.\.\); the network and its optimiser are restored",
        caplog.text,
    )
    assert said is not None
    assert [int(row) for row in said[1].split(", ")] == served[1][:20]  # of the second step


def test_nan_before_a_stop_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda count, number: count == 1)
    run(small_config(tmp_path / "whole"))
    monkeypatch.undo()
    stop = StopAfter(40)
    poison(monkeypatch, lambda count, number: count == 1)
    # the first look after the poisoned step stops the run: weights are NaN in the checkpoint, and its snapshot is not
    honest = train_epoch.semisup_loss

    def stopping(*args: Any) -> Any:
        stop.looks = stop.stop_at
        return honest(*args)

    monkeypatch.setattr(train_epoch, "semisup_loss", stopping)
    with pytest.raises(Stopped):
        run(small_config(tmp_path / "run"), stop)
    monkeypatch.undo()
    assert run(small_config(tmp_path / "run"))["finished"]
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_repeated_nan_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda count, number: number == 1)  # the other network is well
    count = train_epoch.MAX_ROLLBACKS + 1
    with pytest.raises(
        RunError,
        match=rf"network 1: NaN or infinite losses, weights, BatchNorm statistics, momentum in {count} consecutive "
        r"passes \(first at step 0, whose batch holds the 64 samples [\d, ]+, \.\.\.\); start",
    ):
        run(small_config(tmp_path / "run", train={"epochs": 8}))


def test_infinite_weights_after_the_last_step_are_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = train_epoch.warm_up

    def ruined(own: Any, *args: Any, **options: Any) -> int:
        steps = honest(own, *args, **options)
        if own.number == 2:
            own.network.classifier.bias.data[3] = torch.inf
        return steps

    monkeypatch.setattr(train_epoch, "warm_up", ruined)
    with caplog.at_level(logging.WARNING, "fastcpc"):
        assert run(small_config(tmp_path / "run"))["finished"]
    assert "epoch 0, network 2: weights became NaN or infinite; the network" in caplog.text


@pytest.mark.parametrize(("kind", "network"), [("cpc_awr", 2), ("none", 1)])
def test_nan_in_a_scoring_pass_names_the_samples(
    kind: str, network: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trainer.score_samples

    def poisoned(*args: Any) -> Any:
        scoring = honest(*args)
        scoring.networks[network - 1].loss_N[5] = torch.nan
        return scoring

    monkeypatch.setattr(trainer, "score_samples", poisoned)
    message = rf"network {network}: the loss of 1 of 240 training samples is NaN or inf \(rows 5\)"
    with pytest.raises(RunError, match=message):
        run(small_config(tmp_path / "run", kind))
    assert not (tmp_path / "run" / "summary.json").exists()


def test_fewer_samples_than_a_batch(tmp_path: Path) -> None:
    """The batch of 32 is filled up: each epoch still takes a step, and both networks learn."""
    run(small_config(tmp_path / "run", "gmm_awr", data={"subset": 30}))
    lines = metrics(tmp_path / "run")
    assert lines[0]["labelled"] == [30, 30] and all(0 < number <= 30 for number in lines[-1]["labelled"])
    assert all(0 < loss < 5 for line in lines for loss in line["loss_total"])
    run(small_config(tmp_path / "short", "gmm_awr", data={"subset": 30}, train={"epochs": 2}))
    for longer, shorter in zip(weights(tmp_path / "run"), weights(tmp_path / "short"), strict=True):
        names = [name for name in longer if "head." not in name and longer[name].ndim > 1]
        assert all(not longer[name].equal(shorter[name]) for name in names)
