"""A run on several ranks is the run on one, up to the order of sums; and it goes on on any number of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from image_run import coloured_images, image_config
from several_ranks import on_ranks
from small_run import StopAfter, assert_same_run, metrics, run, small_config, weights

from fastcpc.config.load import to_yaml
from fastcpc.config.schema import Config
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import named
from fastcpc.engine.step_loop import Stopped

TOLERANCE = 1e-5  # of losses, probabilities and weights; what was seen is below 3e-6
SPECIAL = {"train": {"epochs": 3}}
FEEDS = ("torch",) if dali_problem() else ("torch", "dali")
# A deep network with ReLUs on batches of 8 makes 1e-3 out of a rounding in a few steps at a usual learning rate.
PHOTO_LR, PHOTO_TOLERANCE = 1e-4, 1e-3
CO = {"parallel": {"mode": "co"}}


def assert_close_run(one: Path, other: Path, tolerance: float = TOLERANCE) -> None:
    """Same partitions, accuracies and AUCs; losses, probabilities and weights within rounding."""
    for line, kept in zip(metrics(other), metrics(one), strict=True):
        assert line.keys() == kept.keys()
        for key, value in line.items():
            if value is None or isinstance(value, str) or any(part is None for part in np.ravel(value)):
                assert value == kept[key], key
            elif key.startswith(("loss", "kl", "ks")):
                np.testing.assert_allclose(value, kept[key], rtol=tolerance, atol=tolerance, err_msg=key)
            else:
                # two test samples on the edge; a few pairs that rounding puts in another order
                few = 0.6 if "top" in key else 1e-3
                np.testing.assert_allclose(value, kept[key], atol=0 if key == "labelled" else few, err_msg=key)
    for a, b in zip(weights(one), weights(other), strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance)
    tables = [pq.read_table(folder / "clean_probabilities.parquet") for folder in (one, other)]
    assert tables[0]["is_clean"] == tables[1]["is_clean"] and tables[0]["index"] == tables[1]["index"]
    for name in ("q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2", "clean_probability", "p_given"):
        values = [table[name].to_numpy(zero_copy_only=False).astype(float) for table in tables]
        np.testing.assert_allclose(*values, atol=tolerance, equal_nan=True, err_msg=name)


def images(folder: Path, loader: str) -> Config:
    """The small run on photos, which are made where they are not there yet."""
    root = folder / "photos"
    if not root.exists():
        coloured_images(root)
    config = image_config(root, folder / loader, loader)
    return replace(config, train=replace(config.train, lr=PHOTO_LR))


def image_jobs(folder: Path) -> list[list[Any]]:
    """That run with every feed, as jobs of rank_runs."""
    jobs = []
    for loader in FEEDS:
        file = folder / f"{loader}.yaml"
        file.write_text(to_yaml(images(folder, loader)))
        jobs.append(["file", str(file)])
    return jobs


def steps_done(folder: Path) -> list[int]:
    """Of both networks in the pass in which a run with CO was stopped."""
    done: list[int] = load(named(folder, "latest"))[1]["done"]
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with one process."""
    folder = tmp_path_factory.mktemp("alone")
    run(small_config(folder / "default"))
    run(small_config(folder / "cpc_only", "cpc_only", **SPECIAL))
    for loader in FEEDS:
        run(images(folder, loader))
    run(small_config(folder / "co", **CO))
    run(small_config(folder / "co_gmm", "gmm_awr", **CO))
    return folder


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checks of the arithmetic, then small runs on two ranks, one after the other in the same processes."""
    folder = tmp_path_factory.mktemp("on_two")
    apart = {
        "parallel": {"sync_batchnorm": False, "mixup": "per_rank", "batch_size": "per_rank"},
        "train": {"epochs": 2},
    }
    co = json.dumps(CO)
    jobs: list[list[Any]] = [
        ["train", folder / "default"],
        ["train", folder / "cpc_only", json.dumps(SPECIAL), -1, "cpc_only"],
        ["train", folder / "summed", json.dumps({"parallel": {"mixture": "summed"}})],
        ["train", folder / "stopped", "{}", 9],
        ["train", folder / "stopped", "{}", 30],
        ["train", folder / "stopped"],
        ["train", folder / "apart", json.dumps(apart)],
        ["train", folder / "apart_stopped", json.dumps(apart), 12],
        ["train", folder / "apart_stopped", json.dumps(apart)],
        ["train", folder / "moved", "{}", 20],
        ["train", folder / "co", co],
        ["train", folder / "co_gmm", co, 5, "gmm_awr"],
        ["train", folder / "co_gmm", co, 16, "gmm_awr"],
        ["train", folder / "co_gmm", co, -1, "gmm_awr"],
        ["train", folder / "co_moved", co, 15],
        ["spoilt", folder / "co_spoilt", co],
        *image_jobs(folder),
    ]
    on_ranks(2, "rank_runs:everything", json.dumps(jobs, default=str))
    return folder


def test_two_ranks_are_one(alone: Path, on_two: Path) -> None:
    assert_close_run(alone / "default", on_two / "default")
    # cosines over a temperature of 0.1 make ten times as much of a rounding
    assert_close_run(alone / "cpc_only", on_two / "cpc_only", 1e-3)
    for loader in FEEDS:
        assert_close_run(alone / loader, on_two / loader, PHOTO_TOLERANCE)
    summary = json.loads((on_two / "default" / "summary.json").read_text())
    assert summary["world_size"] == 2 and summary["finished"]


def test_four_ranks_are_one(alone: Path, tmp_path: Path) -> None:
    """Of which one has no batch to score; the arithmetic is checked as well."""
    jobs = [["train", str(tmp_path / "run")], ["train", str(tmp_path / "co"), json.dumps(CO)], *image_jobs(tmp_path)]
    on_ranks(4, "rank_runs:everything", json.dumps(jobs))
    for loader in FEEDS:
        assert_close_run(alone / loader, tmp_path / loader, PHOTO_TOLERANCE)
    assert_close_run(alone / "default", tmp_path / "run")
    assert_close_run(alone / "co", tmp_path / "co")
    said = "4 processes (gloo), 2 for each network, global batch 32 = 2 x 16, lr 0.02; BatchNorm over a network's ranks"
    assert said in (tmp_path / "co" / "train.log").read_text()


def test_a_stop_on_two_ranks_changes_no_bit(on_two: Path) -> None:
    """One rank is asked to stop, in the warm-up and in a later epoch; both do, and the run goes on as if it had not."""
    assert "resumed from" in (on_two / "stopped" / "train.log").read_text()
    assert_same_run(on_two / "default", on_two / "stopped")
    assert_same_run(on_two / "apart", on_two / "apart_stopped")


def test_ranks_apart_say_so_and_hold_one_network(on_two: Path) -> None:
    """Without synchronised BatchNorm the ranks still hold the same weights (each epoch checks it), and the log says
    what a batch is."""
    log = (on_two / "apart" / "train.log").read_text()
    assert "2 processes (gloo), global batch 64 = 2 x 32, lr 0.02; BatchNorm per rank, MixUp per rank" in log
    assert (on_two / "apart" / "train.rank1.log").exists()


def test_a_run_goes_on_on_another_number_of_ranks(alone: Path, on_two: Path) -> None:
    """2 -> 1 -> 2, each time stopped inside an epoch."""
    folder = on_two / "moved"
    with pytest.raises(Stopped):
        run(small_config(folder), StopAfter(30))
    on_ranks(2, "rank_runs:train_small", folder)
    assert_close_run(alone / "default", folder)


def test_mixtures_from_sums_are_those_of_all_losses(on_two: Path) -> None:
    assert_close_run(on_two / "default", on_two / "summed")


def test_a_network_for_each_rank(alone: Path, on_two: Path) -> None:
    """Half of the ranks a network: as with one process that trains both, to the bit where no sum crosses the ranks,
    also after two stops; and on one process and back, stopped inside a pass each time."""
    assert_close_run(alone / "co", on_two / "co")
    assert "resumed from" in (on_two / "co_gmm" / "train.log").read_text()
    assert_same_run(alone / "co_gmm", on_two / "co_gmm", one_world=False)
    folder = on_two / "co_moved"
    assert min(steps_done(folder)) > 0
    with pytest.raises(Stopped):
        run(small_config(folder, **CO), StopAfter(22))
    assert max(steps_done(folder)) > 0
    on_ranks(2, "rank_runs:train_small", folder, json.dumps(CO))
    assert_close_run(alone / "co", folder)


def test_a_pass_of_the_other_half_that_is_taken_back(on_two: Path) -> None:
    """Rank 0 says what befell the network that it did not train."""
    lines = metrics(on_two / "co_spoilt")
    assert lines[1]["loss_total"][1] is None and all(lines[1]["loss_total"][:1]) and all(lines[2]["loss_total"])
    log = (on_two / "co_spoilt" / "train.log").read_text()
    assert "epoch 1, network 2: losses, weights, BatchNorm statistics, momentum became NaN or infinite (first at step 1, whose batch holds the 64 samples" in log
