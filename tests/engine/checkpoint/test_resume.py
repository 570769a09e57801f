"""A run that was stopped, or killed, and started again ends with the same bits as one that was not."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from several_ranks import SUPPORT, TIME_LIMIT, environment
from small_run import StopAfter, assert_same_run, assert_same_weights, metrics, run, small_config, weights

from fastcpc.config.load import to_yaml
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import named
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError

UNLUCKY = SUPPORT / "unlucky_train.py"


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


def started(config_file: Path, *accident: Any) -> "subprocess.CompletedProcess[str]":
    """A training process to its end. accident: (rank, look, signal, target) of unlucky_train.py; none without."""
    command = [sys.executable, str(UNLUCKY), json.dumps([accident] if accident else []), "--config", str(config_file)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIME_LIMIT, check=False)


@pytest.mark.slow
def test_processes_killed_or_stopped_by_signals_resume(undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    folder, file = tmp_path / "run", tmp_path / "run.yaml"
    file.write_text(to_yaml(small_config(folder)))
    # in epoch 1, again in epoch 1 (which a kill loses), and in epoch 2
    for look, name, code in ((25, "SIGKILL", -9), (12, "SIGTERM", 143), (20, "SIGINT", 130)):
        done = started(file, -1, look, name, "self")
        assert done.returncode == code, done.stderr
        assert ("start the same command again to resume" in done.stdout + done.stderr) == (code > 0)
    done = started(file)
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    assert_same_run(undisturbed[0], folder)


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
