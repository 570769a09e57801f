"""Runs on shards and Parquet files under torchrun, and runs on them that are stopped or killed on the way."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from containers import form_config, image_forms
from several_ranks import SUPPORT, Jobs, on_ranks, run_jobs, run_to_end, torchrun
from small_run import assert_same_run, metrics, run

from fastcpc.config.load import to_yaml
from fastcpc.config.schema import Config

KINDS = ("shards", "parquet")
UNLUCKY = str(SUPPORT / "unlucky_train.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    image_forms(root)
    return root


def config_of(made: Path, kind: str, folder: Path) -> Config:
    config = form_config(made, kind, folder / kind, "torch")
    return replace(config, model=replace(config.model, name="small_cnn"))


def write_configs(made: Path, folder: Path, kinds: tuple[str, ...] = KINDS) -> list[str]:
    files = [folder / f"{kind}.yaml" for kind in kinds]
    for kind, file in zip(kinds, files, strict=True):
        file.write_text(to_yaml(config_of(made, kind, folder)))
    return list(map(str, files))


@pytest.fixture(scope="module")
def on_two(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Runs on two ranks without an accident."""
    folder, kinds = tmp_path_factory.mktemp("two"), ("folder", *KINDS)
    files = write_configs(made, folder, kinds)
    jobs = {kind: [["rank_runs:checked", "train_file", file]] for kind, file in zip(kinds, files, strict=True)}
    return run_jobs(2, folder, jobs)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_on_containers_as_on_files(kind: str, on_two: Jobs) -> None:
    """Each rank lists all containers and reads its own samples; test_ranks.py compares files with one rank."""
    one, other = on_two.result("folder"), on_two.result(kind)
    assert metrics(one) == metrics(other)
    tables = [pq.read_table(folder / "clean_probabilities.parquet").drop(["path"]) for folder in (one, other)]
    assert len(tables[0]) == 42 and tables[0].equals(tables[1])


def test_killed_and_stopped_runs_are_bit_identical(made: Path, tmp_path: Path) -> None:
    """Each run is killed in its second epoch, gets SIGTERM in it after a restart, and then comes to its end."""
    files = write_configs(made, tmp_path)
    kill, stop = (0, 20, "SIGKILL", "self"), (0, 5, "SIGTERM", "self")
    accidents = [(number, accident) for number in range(len(KINDS)) for accident in (kill, stop)]
    on_ranks(1, "rank_runs:train_files_unlucky", json.dumps(files), json.dumps(accidents), restarts=len(accidents))
    for kind in KINDS:
        log = (tmp_path / kind / "train.log").read_text()
        assert log.count("resumed from") == 2 and "stopped by SIGTERM at epoch 1" in log, log
        run(config_of(made, kind, tmp_path / "whole"))
        assert_same_run(tmp_path / "whole" / kind, tmp_path / kind)


def test_torchrun_on_containers_with_a_killed_rank_is_bit_identical(made: Path, on_two: Jobs, tmp_path: Path) -> None:
    """One start trains on shards, then on Parquet files. A rank is killed in the first run; torchrun restarts both."""
    files = write_configs(made, tmp_path)
    arguments = [UNLUCKY, json.dumps([[1, 20, "SIGKILL", "self"]]), "--config", files[0], "then", "--config", files[1]]
    command = torchrun(2, *arguments, options=("--standalone", "--max-restarts=1"))
    run_to_end(command)
    assert (tmp_path / "shards" / "train.log").read_text().count("resumed from") == 1
    for kind in KINDS:
        assert_same_run(on_two.result(kind), tmp_path / kind)
