"""A run that was stopped, or killed, and started again ends with the same bits as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from several_ranks import TIME_LIMIT
from small_run import StopAfter, assert_same_run, assert_same_weights, metrics, run, small_config, weights

from fastcpc.config.load import to_yaml
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import named
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run without a stop, and how often it looked for one."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    stop = StopAfter()
    run(small_config(folder), stop)
    return folder, stop.looks


# looks of the run: 16 and 4 in the warm-up epoch, then score 3, train some, evaluate 4, ... ; the rest is spread evenly
@pytest.mark.parametrize("share", [0.0, 0.05, 0.12, 0.2, 0.27, 0.33, 0.45, 0.55, 0.7, 0.85, 0.97, 1.0])
def test_a_stop_anywhere_changes_nothing(share: float, undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    whole, looks = undisturbed
    config = small_config(tmp_path / "run")
    with pytest.raises(Stopped) as stopped:
        run(config, StopAfter(max(1, round(share * looks))))
    assert stopped.value.signum == 15
    run(config)
    assert_same_run(whole, tmp_path / "run")


def test_many_stops_change_nothing(undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    config, num_stops = small_config(tmp_path / "run"), 0
    while True:
        try:
            run(config, StopAfter(11))
            break
        except Stopped:
            num_stops += 1
            assert num_stops < 100
    assert num_stops > 5
    assert_same_run(undisturbed[0], tmp_path / "run")


def test_a_stop_in_the_middle_of_an_epoch_keeps_its_steps(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run")
    with pytest.raises(Stopped):
        run(config, StopAfter(5))
    position = load(named(tmp_path / "run", "latest"))[1]["position"]
    assert position == {"epoch": 0, "stage": 0, "step": 5}


def test_resume_from_a_path_goes_the_same_way(undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    whole, _ = undisturbed
    kept = small_config(tmp_path / "kept", run={"keep_every": 1})
    run(kept)
    early = tmp_path / "kept" / "checkpoints" / "epoch_0001"
    run(small_config(tmp_path / "branch", run={"resume": str(early)}))
    assert [line["epoch"] for line in metrics(tmp_path / "branch")] == [2, 3]
    assert_same_weights(weights(whole), weights(tmp_path / "branch"))


@contextmanager
def started(config_file: Path) -> Iterator[subprocess.Popen[str]]:
    """A training process, which does not outlive the body."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fastcpc.cli.train", "--config", str(config_file)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_epochs(process: subprocess.Popen[str], folder: Path, num: int) -> None:
    """Until that many epochs are in metrics.jsonl."""
    deadline = time.monotonic() + TIME_LIMIT
    file = folder / "metrics.jsonl"
    while not (file.exists() and len(file.read_text().splitlines()) >= num):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.02)


@pytest.mark.slow
def test_processes_that_are_killed_or_told_to_stop(tmp_path: Path) -> None:
    # three stops of one epoch and up to 0.1 s each: on a fast machine an epoch takes 0.1 s, and the run must not end
    # before
    long = {"train": {"epochs": 30}}
    folder = tmp_path / "run"
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(small_config(folder, **long)))
    for signum, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        done = len((folder / "metrics.jsonl").read_text().splitlines()) if folder.exists() else 0
        with started(file) as process:
            wait_for_epochs(process, folder, done + 1)
            time.sleep(random.Random(done).random() * 0.1)
            process.send_signal(signum)
            output = process.communicate(timeout=TIME_LIMIT)[0]
        assert process.returncode == code, output
        if code > 0:
            assert "start the same command again to resume" in output
    with started(file) as process:
        output = process.communicate(timeout=TIME_LIMIT)[0]
    assert process.returncode == 0, output
    assert "resumed from" in output
    run(small_config(tmp_path / "whole", **long))
    assert_same_run(tmp_path / "whole", folder)


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"data": {"subset": 100}}, "data.subset (240 there, 100 now)"),
        ({"model": {"width": 32}}, "model.width (16 there, 32 now)"),
        ({"run": {"seed": 8}}, "run.seed (3 there, 8 now)"),
        ({"noise": {"rate": 0.2}}, "noise.rate (0.4 there, 0.2 now)"),
        ({"cpc": {"embedding_dim": 8}}, "cpc.embedding_dim (16 there, 8 now)"),
    ],
)
def test_a_checkpoint_of_other_samples_or_networks_is_refused(
    sections: dict[str, dict[str, Any]], named: str, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    config = small_config(tmp_path / "branch", **sections)
    config = replace(config, run=replace(config.run, resume=str(undisturbed[0])))
    with pytest.raises(InputError, match="is of a run with other settings") as caught:
        run(config)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_going_back_inside_a_run_then_on(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", run={"keep_every": 1})
    run(config)
    end = metrics(tmp_path / "run")
    back = replace(config, run=replace(config.run, resume=str(tmp_path / "run" / "checkpoints" / "epoch_0001")))
    with pytest.raises(Stopped):
        run(back, StopAfter(3))
    assert not (tmp_path / "run" / "summary.json").exists()
    run(config)
    assert metrics(tmp_path / "run") == end
