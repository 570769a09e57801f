"""Epochs of a drawn pool (train.pool_batches): its samples, and which samples are scored."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from small_run import metrics, run, small_config, weights

from fastcpc.cleaner.partition import Partition
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.train_epoch import TrainContext, paired_batches

CPU = Numerics(torch.device("cpu"), torch.float32)
LABELS = torch.arange(3000) % 10 // 3  # 900 of labels 0 to 2 each, 300 of label 3


def pool_config(folder: Path, scored: str, **sections: Any) -> Config:
    """Pools of 96 of the 240 digits."""
    sections["train"] = {"pool_batches": 3} | sections.get("train", {})
    return small_config(folder, cleaner={"warmup": 0.25, "scored": scored}, **sections)


def training(scored: str) -> TrainContext:
    config = pool_config(Path("unused"), scored, train={"pool_batches": 20})
    return TrainContext(config, CPU, SimpleNamespace(num_samples=3000), LABELS, 4)  # type: ignore[arg-type]


def learner(partition: Partition, number: int = 1) -> Any:
    return SimpleNamespace(number=number, partition=partition)


def test_warmup_pool_is_balanced_and_differs_per_epoch_and_network() -> None:
    pools = [
        training("all").warm_up_rows(learner(None, number), epoch)  # type: ignore[arg-type]
        for epoch, number in ((0, 1), (0, 1), (1, 1), (0, 2))
    ]
    assert all(torch.bincount(LABELS[rows]).tolist() == [160] * 4 for rows in pools)
    assert pools[0].equal(pools[1]) and not pools[0].equal(pools[2]) and not pools[0].equal(pools[3])


def test_pool_draws_from_both_sets_when_all_are_scored() -> None:
    clean = torch.arange(3000) < 2000
    assert training("all").scored(3) is None
    batches = torch.stack(paired_batches(learner(Partition(clean, clean.float())), training("all"), 3))
    labelled, unlabelled = batches[:, :32].flatten(), batches[:, 32:].flatten()
    assert bool(clean[labelled].all()) and not bool(clean[unlabelled].any())
    assert torch.bincount(LABELS[labelled.unique()]).tolist() == [160] * 4
    assert torch.bincount(LABELS[unlabelled.unique()]).tolist() == [160, 160, 160, 100]


def test_epoch_uses_only_the_scored_pool() -> None:
    rows = training("pool").scored(3)
    assert rows is not None and torch.bincount(LABELS[rows]).tolist() == [160] * 4
    for clean_share in (0.7, 1.0):
        partition = Partition(torch.rand(640) < clean_share, torch.rand(640)).scatter_to(rows, 3000)
        seen = torch.cat(paired_batches(learner(partition), training("pool"), 3))
        assert set(seen.tolist()) == set(rows.tolist())


def test_files_of_a_run_that_scores_its_pool(tmp_path: Path) -> None:
    run(pool_config(tmp_path / "run", "pool"))
    lines = metrics(tmp_path / "run")
    assert lines[0]["labelled"] == [96, 96]  # the warm-up's pools
    assert all(sum(line["labelled"]) <= 2 * 96 for line in lines)
    assert all(0 < value <= 1 for line in lines[1:] for value in [*line["auc_cpc"], *line["partition_precision"]])
    state = load(find_checkpoint(tmp_path / "run", "latest"))[1]
    for one in state["members"]:
        clean_N, clean_prob_N = one["partition"]
        assert len(clean_N) == 240 and int((~clean_prob_N.isnan()).sum()) == 96
        assert not bool(clean_N[clean_prob_N.isnan()].any())
    table = pq.read_table(tmp_path / "run" / "clean_probabilities.parquet")
    assert table.num_rows == 240  # the final cleaning is of all samples
    assert np.isfinite(table["clean_probability"].to_numpy()).all()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["finished"]


def test_cleaner_scored_changes_training_after_the_warmup_only(tmp_path: Path) -> None:
    for scored in ("all", "pool"):
        run(pool_config(tmp_path / scored, scored))
    lines = [metrics(tmp_path / scored) for scored in ("all", "pool")]
    assert lines[0][0] == lines[1][0]
    assert all(one["loss_total"] != other["loss_total"] for one, other in zip(lines[0][1:], lines[1][1:], strict=True))
    for one, other in zip(weights(tmp_path / "all"), weights(tmp_path / "pool"), strict=True):
        assert all(not one[key].equal(other[key]) for key in one if one[key].is_floating_point())
    states = [load(find_checkpoint(tmp_path / scored, "latest"))[1]["members"] for scored in ("all", "pool")]
    known = [[int((~member["partition"][1].isnan()).sum()) for member in members] for members in states]
    assert known == [[240, 240], [96, 96]]
