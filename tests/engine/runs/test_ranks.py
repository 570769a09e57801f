"""A run on several ranks equals the run on one, up to summation order, and resumes on any number of ranks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from decisions import with_decisions
from image_run import coloured_images, image_config
from rank_checks import CHECKS
from rank_runs import in_float64
from several_ranks import Jobs, on_ranks, run_jobs
from small_run import StopAfter, assert_same_run, metrics, run, small_config, weights

from fastcpc.config.load import to_yaml
from fastcpc.config.schema import Config
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.distributed.process_group import SINGLE_RANK
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.step_loop import Stopped

ON_ONE = (
    "batchnorm",
    "batchnorm_in_a_network",
    "penalty",
    "partners",
    "gradients",
    "gathers",
    "prototypes",
    "mixtures",
)
TOLERANCE = 1e-5  # of losses, probabilities and weights; the largest difference seen is 3e-6
# In float64, where the largest difference seen is 8e-15. In float32 the run with corrections differs by 2e-5, in a
# posterior that an ill-conditioned mixture gives: this shows that the order of sums is the whole difference.
SUM_ORDER = 1e-12
LOADERS = ("torch",) if dali_problem() else ("torch", "dali")
# A deep network with ReLUs on batches of 8 turns a rounding error into 1e-3 in a few steps at a usual learning rate.
IMAGES_LR, IMAGES_TOLERANCE = 1e-4, 1e-3
CPC_ONLY = {"train": {"epochs": 3}}
CO = {"parallel": {"mode": "co"}}
FINETUNE = {
    "optim": {"name": "adamw", "clip_norm": 1.0, "decay_norms": False, "backbone_lr_scale": 0.5},
    "train": {"schedule": "cosine", "warmup_steps": 12, "lr": 1e-3},
    "ema": {"decay": 0.9},
    "semisup": {"views": 1},
}
FINETUNE_TOLERANCE = 1e-4  # AdamW divides by the root of small second moments
GUARD = {"cleaner": {"guard": "auto"}}
PER_RANK = {
    "parallel": {"sync_batchnorm": False, "mixup": "per_rank", "batch_size": "per_rank"},
    "train": {"epochs": 2},
}


def assert_close_run(one: Path, other: Path, tolerance: float = TOLERANCE) -> None:
    """Assert equal partitions, accuracies and AUCs, and close losses, probabilities and weights."""
    for line, kept in zip(metrics(other), metrics(one), strict=True):
        assert line.keys() == kept.keys()
        for key, value in line.items():
            if value is None or isinstance(value, str) or any(part is None for part in np.ravel(value)):
                assert value == kept[key], key
            elif key.startswith(("loss", "kl", "ks")):
                np.testing.assert_allclose(value, kept[key], rtol=tolerance, atol=tolerance, err_msg=key)
            else:
                # top-1: two test samples near a boundary; AUC: a few pairs in another order
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


def image_runs(folder: Path, loader: str) -> Config:
    """The small run on image files, which are made on first use."""
    root = folder / "images"
    if not root.exists():
        coloured_images(root)
    config = image_config(root, folder / loader, loader)
    return replace(config, train=replace(config.train, lr=IMAGES_LR))


def train(folder: Path, sections: Any = None, stop_at: int = -1, kind: str = "cpc_awr") -> list[Any]:
    """A call of a job: the small run, perhaps stopped on the way."""
    return ["rank_runs:checked", "train_small", folder, json.dumps(sections or {}), stop_at, kind]


def corrected(folder: Path) -> dict[str, Any]:
    """Settings of a run with corrections, whose mixtures are summed over the ranks."""
    config = with_decisions(small_config(folder / "unused"), folder / "c.csv", 40)
    return {"data": {"subset": 240, "corrections": config.data.corrections}, "parallel": {"mixture": "summed"}}


def image_jobs(folder: Path) -> dict[str, list[list[Any]]]:
    """A job per loader that trains on image files."""
    jobs = {}
    for loader in LOADERS:
        file = folder / f"{loader}.yaml"
        file.write_text(to_yaml(image_runs(folder, loader)))
        jobs[loader] = [["rank_runs:checked", "train_file", file]]
    return jobs


def check_jobs() -> dict[str, list[list[Any]]]:
    return {check: [["rank_checks:check", check]] for check in CHECKS}


def steps_done(folder: Path) -> list[int]:
    """Steps of both networks in the pass in which a run with CO was stopped."""
    done: list[int] = load(find_checkpoint(folder, "latest"))[1]["done"]
    return done


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of this file with one process."""
    folder = tmp_path_factory.mktemp("on_one")
    run(small_config(folder / "default"))
    run(small_config(folder / "cpc_only", "cpc_only", **CPC_ONLY))
    for loader in LOADERS:
        run(image_runs(folder, loader))
    run(small_config(folder / "confusion", "confusion", **GUARD))
    run(small_config(folder / "finetune", **FINETUNE))
    run(small_config(folder / "co", **CO))
    with in_float64():
        run(small_config(folder / "corrected", **corrected(folder)))
    run(small_config(folder / "co_gmm", "gmm_awr", **CO))
    return folder


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """The checks and the runs of this file on two ranks."""
    folder = tmp_path_factory.mktemp("on_two")

    def stopped(name: str, sections: Any, *stops: int, kind: str = "cpc_awr") -> list[list[Any]]:
        return [train(folder / name, sections, stop_at, kind) for stop_at in (*stops, -1)]

    return run_jobs(
        2,
        folder,
        {
            **check_jobs(),
            "default": [train(folder / "default")],
            "cpc_only": [train(folder / "cpc_only", CPC_ONLY, kind="cpc_only")],
            "confusion": [train(folder / "confusion", GUARD, kind="confusion")],
            "corrected": [
                ["rank_runs:train_in_float64", folder / "corrected", json.dumps(corrected(folder))],
            ],
            "finetune": [train(folder / "finetune", FINETUNE)],
            "summed": [train(folder / "summed", {"parallel": {"mixture": "summed"}})],
            "stopped": stopped("stopped", {}, 9, 30),
            "per_rank": [train(folder / "per_rank", PER_RANK)],
            "per_rank_stopped": stopped("per_rank_stopped", PER_RANK, 12),
            "moved": [train(folder / "moved", {}, 20)],
            "co": [train(folder / "co", CO)],
            "co_gmm": stopped("co_gmm", CO, 5, 16, kind="gmm_awr"),
            "co_moved": [train(folder / "co_moved", CO, 15)],
            "co_nan": [["rank_runs:checked", "train_with_nan", folder / "co_nan", json.dumps(CO)]],
            **image_jobs(folder),
        },
    )


@pytest.fixture(scope="module")
def on_four(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """The checks and some runs on four ranks. In a scoring pass one of them has no batch."""
    folder = tmp_path_factory.mktemp("on_four")
    runs = {"default": [train(folder / "default")], "co": [train(folder / "co", CO)]}
    return run_jobs(4, folder, {**check_jobs(), **runs, **image_jobs(folder)})


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """A run and the checks that one rank can make, in a process group of one rank."""
    folder = tmp_path_factory.mktemp("grouped")
    checks = {check: job for check, job in check_jobs().items() if check in ON_ONE}
    with patch.dict("os.environ", {SINGLE_RANK: "1"}):
        return run_jobs(1, folder, {**checks, "default": [train(folder / "default")]})


@pytest.mark.parametrize("ranks", ["on_two", "on_four"])
@pytest.mark.parametrize("check", CHECKS)
def test_ranks_together_compute_what_one_computes(check: str, ranks: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(ranks).result(check)


@pytest.mark.parametrize(
    ("name", "ranks", "tolerance"),
    [
        ("default", "on_two", TOLERANCE),
        ("cpc_only", "on_two", 1e-3),  # cosines over a temperature of 0.1 multiply a rounding error by ten
        ("confusion", "on_two", TOLERANCE),  # the matrix is summed over the ranks
        ("finetune", "on_two", FINETUNE_TOLERANCE),
        ("co", "on_two", TOLERANCE),
        ("corrected", "on_two", SUM_ORDER),
        ("default", "on_four", TOLERANCE),
        ("co", "on_four", TOLERANCE),
        *((loader, ranks, IMAGES_TOLERANCE) for loader in LOADERS for ranks in ("on_two", "on_four")),
    ],
)
def test_several_ranks_train_the_run_of_one(
    name: str, ranks: str, tolerance: float, on_one: Path, request: pytest.FixtureRequest
) -> None:
    assert_close_run(on_one / name, request.getfixturevalue(ranks).result(name), tolerance)


def test_summary_and_log_name_the_number_of_ranks(on_two: Jobs, on_four: Jobs) -> None:
    summary = json.loads((on_two.result("default") / "summary.json").read_text())
    assert summary["world_size"] == 2 and summary["finished"]
    said = "4 processes (gloo), 2 for each network, global batch 32 = 2 x 16, lr 0.02; BatchNorm over a network's ranks"
    assert said in (on_four.result("co") / "train.log").read_text()


@pytest.mark.parametrize(("whole", "stopped"), [("default", "stopped"), ("per_rank", "per_rank_stopped")])
def test_run_stopped_on_two_ranks_is_bit_identical(whole: str, stopped: str, on_two: Jobs) -> None:
    """One rank gets the request, in the warm-up or later; both stop."""
    assert "resumed from" in (on_two.result(stopped) / "train.log").read_text()
    assert_same_run(on_two.result(whole), on_two.result(stopped))


def test_per_rank_settings_are_logged(on_two: Jobs) -> None:
    """Without synchronised BatchNorm the ranks still have equal weights, which each epoch checks."""
    folder = on_two.result("per_rank")
    log = (folder / "train.log").read_text()
    assert "2 processes (gloo), global batch 64 = 2 x 32, lr 0.02; BatchNorm per rank, MixUp per rank" in log
    assert (folder / "train.rank1.log").exists()


def test_run_resumes_on_another_number_of_ranks(on_one: Path, on_two: Jobs) -> None:
    """Two ranks, one, two again; each time stopped inside an epoch."""
    folder = on_two.result("moved")
    with pytest.raises(Stopped):
        run(small_config(folder), StopAfter(30))
    on_ranks(2, "rank_runs:train_small", folder)
    assert_close_run(on_one / "default", folder)


def test_mixtures_from_sums_equal_those_of_all_losses(on_two: Jobs) -> None:
    assert_close_run(on_two.result("default"), on_two.result("summed"))


def test_co_training_without_sums_over_ranks_is_bit_identical(on_one: Path, on_two: Jobs) -> None:
    """Each network has one rank; the run was stopped twice."""
    folder = on_two.result("co_gmm")
    assert "resumed from" in (folder / "train.log").read_text()
    assert_same_run(on_one / "co_gmm", folder, one_world=False)


def test_co_training_resumes_on_another_number_of_ranks(on_one: Path, on_two: Jobs) -> None:
    """Two ranks, one, two again; each time stopped inside a pass."""
    folder = on_two.result("co_moved")
    assert min(steps_done(folder)) > 0
    with pytest.raises(Stopped):
        run(small_config(folder, **CO), StopAfter(22))
    assert max(steps_done(folder)) > 0
    on_ranks(2, "rank_runs:train_small", folder, json.dumps(CO))
    assert_close_run(on_one / "co", folder)


def test_rank_0_logs_the_rollback_of_a_network_of_other_ranks(on_two: Jobs) -> None:
    folder = on_two.result("co_nan")
    lines = metrics(folder)
    assert lines[1]["loss_total"][1] is None and all(lines[1]["loss_total"][:1]) and all(lines[2]["loss_total"])
    log = (folder / "train.log").read_text()
    parts = "losses, weights, BatchNorm statistics, momentum"
    where = "(first at step 1, whose batch holds the 64 samples"
    assert f"epoch 1, network 2: {parts} became NaN or infinite {where}" in log


@pytest.mark.parametrize("check", ON_ONE)
def test_collectives_run_in_a_group_of_one(check: str, grouped: Jobs) -> None:
    grouped.result(check)


def test_run_in_a_group_of_one_is_close_to_a_run_without(grouped: Jobs, on_one: Path) -> None:
    assert_close_run(on_one / "default", grouped.result("default"))
    logs = [(folder / "default" / "train.log").read_text() for folder in (grouped.folder, on_one)]
    assert "1 process (gloo), batch 32" in logs[0] and "1 process, batch 32" in logs[1]
