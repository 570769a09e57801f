"""bench/accuracy.py: schedules and results by value; a run in stretches closes each epoch once."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from made_states import made_up, same
from small_run import small_config

from fastcpc.config.load import load_config, to_yaml
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.errors import InputError

ROOT = Path(__file__).parents[2]
EPOCHS = 8


def test_schedule_is_scaled_to_the_epochs(accuracy: ModuleType) -> None:
    config = ROOT / "configs/cifar10_sym50.yaml"  # 450 epochs, 10 of warm-up, drop at 225, ramp of 16
    plan = accuracy.make_plan([config], [], 60)
    assert plan.schedule == "60 epochs, scaled from 450"
    assert plan.scaled == {
        "train.epochs": 60, "train.warmup_epochs": 10, "train.lr_drop_epoch": 30, "semisup.rampup_epochs": 2
    }  # fmt: skip
    assert (plan.config.train.epochs, plan.config.train.lr_drop_epoch, plan.config.semisup.rampup_epochs) == (60, 30, 2)
    assert accuracy.make_plan([config], [], 30).config.train.warmup_epochs == 6  # a fifth at most
    own_drop = accuracy.make_plan([config], ["train.lr_drop_epoch=50"], 60)
    assert own_drop.scaled["train.lr_drop_epoch"] == own_drop.config.train.lr_drop_epoch == 50
    for plain in (accuracy.make_plan([config], [], 0), accuracy.make_plan([config], [], 450)):
        assert (plain.schedule, plain.scaled) == ("450 epochs, as configured", {})
        assert plain.config == load_config([config], [])
    with pytest.raises(InputError, match=r"train.epochs: --epochs sets it here; leave it out"):
        accuracy.make_plan([config], ["train.epochs=9"], 60)


def test_time_to_an_accuracy(accuracy: ModuleType) -> None:
    small = made_up(accuracy.small_state, 2)
    lines = [(60.0, 10.0), (94.0, 4.0), (93.0, 5.0)]
    metrics = "".join(json.dumps({"test_top1": top1, "seconds": {"total": s}}) + "\n" for top1, s in lines)
    small = replace(small, metrics=metrics, epoch=3, stretches=[{"seconds": 30.0}, {"seconds": 12.0}])
    plan = accuracy.make_plan([ROOT / "configs/cifar10_sym50.yaml"], [], 60)
    found = accuracy.result(plan, small, {}, [50.0, 94.0, 94.5])
    assert found["reach"] == {
        "50": {"epoch": 0, "seconds": 10.0}, "94": {"epoch": 1, "seconds": 14.0}, "94.5": None
    }  # fmt: skip
    assert (found["seconds"], found["stretch_seconds"], found["finished"]) == (19.0, 42.0, False)
    assert found["curve"] == {"test_top1": [60.0, 94.0, 93.0], "seconds": [10.0, 14.0, 19.0]}


def test_end_of_a_stretch(accuracy: ModuleType) -> None:
    lines = [json.dumps({"seconds": {"total": seconds}}).encode() for seconds in (90.0, 10.0)]
    assert not accuracy.ends_here(lines, num_epochs=9, last_epoch=3, left=12.5)
    assert accuracy.ends_here(lines, num_epochs=9, last_epoch=3, left=11.5)  # the next may take 12 s
    assert accuracy.ends_here(lines, num_epochs=9, last_epoch=2, left=1000)
    assert not accuracy.ends_here(lines, num_epochs=2, last_epoch=2, left=1)


def test_state_is_that_of_a_complete_epoch(accuracy: ModuleType, tmp_path: Path) -> None:
    """Of a run that resumes from a state, ends an epoch, and is stopped in the middle of the next."""
    config = load_config([ROOT / "configs/digits_sym80.yaml"], [f"run.dir={tmp_path / 'run'}"])
    small = made_up(accuracy.small_state, 2)
    accuracy.lay_out(tmp_path / "run", config, small)
    path, networks, state = accuracy.small_state.newest(tmp_path / "run")
    assert path.name == "epoch_0001"
    assert same([networks, state], [small.networks, small.state])
    assert accuracy.take(tmp_path / "run", config, small, {}) is None  # as it was

    store = CheckpointStore(tmp_path / "run", 0, {"model": "made_up"})
    third = made_up(accuracy.small_state, 3)
    store.save(2, third.networks, third.state, best=False)
    (tmp_path / "run/metrics.jsonl").write_text("".join(f'{{"epoch": {epoch}}}\n' for epoch in range(4)))
    environment = {"commit": "abc", "cpu": "C", "gpus": [], "packages": {}}
    (tmp_path / "run/environment.json").write_text(json.dumps({**environment, "command": ["x"]}))
    for stage, step in ((0, 5), (1, 0), (1, 5)):
        position = {"epoch": 3, "stage": stage, "step": step}
        store.save(3, small.networks, {**third.state, "position": position}, best=False)
        kept = accuracy.take(tmp_path / "run", config, small, {"seconds": 5.0})
        assert same([kept.epoch, kept.networks, kept.state], [3, third.networks, third.state])
        assert kept.metrics == '{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n'
        assert kept.header == {"model": "made_up"}
        assert kept.stretches == [*small.stretches, {**environment, "seconds": 5.0, "epochs": [2, 3]}]
    with pytest.raises(InputError, match=r"--run: .* is not empty"):
        accuracy.lay_out(tmp_path / "run", config, small)


@pytest.mark.slow
def test_run_in_two_stretches_closes_each_epoch_once(
    accuracy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by SIGTERM in the middle, then by itself: each epoch is closed once; one more call trains nothing."""
    state, results = tmp_path / "state", tmp_path / "results"
    config = tmp_path / "small.yaml"
    small = small_config(tmp_path / "unused")
    small = replace(small, run=replace(small.run, dir="", name="small"), train=replace(small.train, epochs=EPOCHS))
    config.write_text(to_yaml(small))
    command = ["--config", str(config), "--state", str(state), "--results", str(results), "--reach", "1", "100"]

    assert accuracy.main([*command, "--minutes", "0.0001"]) == 1
    assert "no epoch ended in this stretch" in capsys.readouterr().err
    assert accuracy.small_state.read(state) is None

    def stop_after_an_epoch() -> None:
        live, deadline = state / "metrics.jsonl", time.monotonic() + 120
        while not live.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_after_an_epoch)
    stopper.start()
    assert accuracy.main(command) == 143
    stopper.join()
    first = accuracy.small_state.read(state)
    assert 1 <= first.epoch < EPOCHS
    partial = json.loads((results / "accuracy_small.json").read_text())
    assert (partial["finished"], partial["epochs"]) == (False, [first.epoch, EPOCHS])

    assert accuracy.main(["run.seed=4", *command]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "is of a run with other settings: run.seed (3 there, 4 now)" in line

    assert accuracy.main(command) == 0
    last = accuracy.small_state.read(state)
    assert (state / "metrics.jsonl").read_text() == last.metrics
    assert last.metrics.startswith(first.metrics)
    assert [json.loads(line)["epoch"] for line in last.metrics.splitlines()] == list(range(EPOCHS))
    assert [stretch["epochs"] for stretch in last.stretches] == [[0, first.epoch], [first.epoch, EPOCHS]]
    assert {stretch["seed"] for stretch in last.stretches} == {3}
    content = json.loads((results / "accuracy_small.json").read_text())
    assert content["finished"] is True
    assert content["summary"]["final_top1"] == content["curve"]["test_top1"][-1]
    assert content["reach"]["100"] is None and content["reach"]["1"]["epoch"] == 0

    monkeypatch.setattr(accuracy.subprocess, "Popen", None)  # a finished run starts nothing
    assert accuracy.main(command) == 0
    assert json.loads((results / "accuracy_small.json").read_text()) == content
