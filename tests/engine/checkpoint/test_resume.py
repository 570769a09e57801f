"""A run that is stopped or killed, and resumed, is bit-identical to one that is not."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from several_ranks import SUPPORT, run_to_end
from small_run import StopAfter, assert_same_run, assert_same_weights, metrics, run, small_config, weights

from fastcpc.config.load import to_yaml
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.learner import HEAD
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError

UNLUCKY = SUPPORT / "unlucky_train.py"


SHARES = (0.1, 0.4, 0.75)
POOL = {"train": {"pool_batches": 3}}
GUARD = {"cleaner": {"guard": "auto", "warmup": 0.0}}
# every part that holds state: AdamW's moments, the average, and rates that depend on the position in the run
FINETUNE = {
    "optim": {"name": "adamw", "clip_norm": 1.0, "decay_norms": False, "backbone_lr_scale": 0.5},
    "train": {"schedule": "cosine", "warmup_steps": 12, "lr": 0.003},
    "ema": {"decay": 0.9},
}
# name: sections of the small run, and at which shares of its step checks it is stopped. The default run checks 16 and
# 4 times in the warm-up epoch, then 3 times while scoring, some while training, 4 while evaluating, and so on.
RUNS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "default": ({}, (0.0, 0.05, 0.12, 0.2, 0.27, 0.33, 0.45, 0.55, 0.7, 0.85, 0.97, 1.0)),
    "pool": ({**POOL, "cleaner": {"warmup": 0.25, "scored": "all"}}, SHARES),
    "scored_pool": ({**POOL, "cleaner": {"warmup": 0.25, "scored": "pool"}}, SHARES),
    "loss_history": ({"cleaner": {"warmup": 0.25, "loss_history": 3}}, (0.75,)),
    "co": ({"parallel": {"mode": "co"}}, SHARES),
    # the last share is after the last step of network 1, whose rate the final cleaning uses
    "finetune": (FINETUNE, (*SHARES, 0.95)),
    "finetune_co": ({**FINETUNE, "parallel": {"mode": "co"}}, (0.4,)),
    "confusion": ({"cleaner": {"kind": "confusion", "guard": "auto"}}, SHARES),
    # both shares are inside a pass of cross entropy on X
    "nearly_clean": ({"noise": {"rate": 0.03}, "train": {"epochs": 5, "warmup_epochs": 3}, **GUARD}, (0.65, 0.84)),
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, int]]:
    """From a name in RUNS to that run without a stop, and how often it checked for one."""

    @cache
    def train(name: str) -> tuple[Path, int]:
        folder = tmp_path_factory.mktemp("whole") / "run"
        stop = StopAfter()
        run(small_config(folder, **RUNS[name][0]), stop)
        return folder, stop.looks

    return train


@pytest.fixture
def undisturbed(whole_run: Callable[[str], tuple[Path, int]]) -> Path:
    return whole_run("default")[0]


@pytest.mark.parametrize(("name", "share"), [(name, share) for name, (_, shares) in RUNS.items() for share in shares])
def test_stopped_run_is_bit_identical(
    name: str, share: float, whole_run: Callable[[str], tuple[Path, int]], tmp_path: Path
) -> None:
    whole, looks = whole_run(name)
    config = small_config(tmp_path / "run", **RUNS[name][0])
    with pytest.raises(Stopped) as stopped:
        run(config, StopAfter(max(1, round(share * looks))))
    assert stopped.value.signum == 15
    run(config)
    assert_same_run(whole, tmp_path / "run")


def test_run_stopped_many_times_is_bit_identical(undisturbed: Path, tmp_path: Path) -> None:
    config, num_stops = small_config(tmp_path / "run"), 0
    while True:
        try:
            run(config, StopAfter(11))
            break
        except Stopped:
            num_stops += 1
            assert num_stops < 100
    assert num_stops > 5
    assert_same_run(undisturbed, tmp_path / "run")


def test_stop_inside_an_epoch_keeps_its_step(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run")
    with pytest.raises(Stopped):
        run(config, StopAfter(5))
    position = load(find_checkpoint(tmp_path / "run", "latest"))[1]["position"]
    assert position == {"epoch": 0, "stage": 0, "step": 5}


def test_run_from_another_checkpoint_equals_the_original(undisturbed: Path, tmp_path: Path) -> None:
    kept = small_config(tmp_path / "kept", run={"keep_every": 1})
    run(kept)
    early = tmp_path / "kept" / "checkpoints" / "epoch_0001"
    run(small_config(tmp_path / "branch", run={"resume": str(early)}))
    assert [line["epoch"] for line in metrics(tmp_path / "branch")] == [2, 3]
    assert_same_weights(weights(undisturbed), weights(tmp_path / "branch"))


@pytest.mark.parametrize("ema", [{}, {"decay": 0.9}], ids=["weights", "average"])
def test_checkpoint_without_prototypes_may_continue_with_another_head(ema: dict[str, float], tmp_path: Path) -> None:
    head = {"cpc": {"embedding_dim": 8, "projector": "mlp"}, "ema": ema}
    plain = {"cleaner": {"kind": "none"}, "train": {"warmup_epochs": 2}}
    run(small_config(tmp_path / "whole", ema=ema, **plain))
    run(small_config(tmp_path / "short", ema=ema, cleaner={"kind": "none"}, train={"epochs": 2, "warmup_epochs": 2}))
    start = {"resume": str(tmp_path / "short")}
    run(small_config(tmp_path / "plain", run=start, **head, **plain))
    for whole, branch in zip(weights(tmp_path / "whole"), weights(tmp_path / "plain"), strict=True):
        assert branch["head.prototypes"].shape[1] == 8 != whole["head.prototypes"].shape[1]
        outside = [{key: net[key] for key in net if not key.startswith(HEAD)} for net in (whole, branch)]
        assert_same_weights(outside[:1], outside[1:])
    cpc = small_config(tmp_path / "cpc", run=start, train={"warmup_epochs": 2}, **head)
    with pytest.raises(Stopped):
        run(cpc, StopAfter(20))
    run(cpc)
    run(small_config(tmp_path / "cpc_whole", run=start, train={"warmup_epochs": 2}, **head))
    assert_same_run(tmp_path / "cpc_whole", tmp_path / "cpc")


def test_checkpoint_inside_an_epoch_needs_its_head(tmp_path: Path) -> None:
    plain = small_config(tmp_path / "plain", cleaner={"kind": "none"})
    with pytest.raises(Stopped):
        run(plain, StopAfter(5))
    branch = small_config(tmp_path / "branch", cpc={"embedding_dim": 8}, run={"resume": str(tmp_path / "plain")})
    with pytest.raises(InputError, match="stopped inside an epoch with other settings of the prototype head"):
        run(branch)


def started(config_file: Path, *accident: Any) -> "subprocess.CompletedProcess[str]":
    """Wait for a training process. accident: empty, or (rank, look, signal, target) of unlucky_train.py."""
    command = [sys.executable, str(UNLUCKY), json.dumps([accident] if accident else []), "--config", str(config_file)]
    return run_to_end(command, check=False)


@pytest.mark.slow
def test_run_after_kill_and_signals_is_bit_identical(undisturbed: Path, tmp_path: Path) -> None:
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
    assert_same_run(undisturbed, folder)


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
def test_checkpoint_of_other_settings_is_rejected(
    sections: dict[str, dict[str, Any]], named: str, undisturbed: Path, tmp_path: Path
) -> None:
    config = small_config(tmp_path / "branch", **sections)
    config = replace(config, run=replace(config.run, resume=str(undisturbed)))
    with pytest.raises(InputError, match="is of a run with other settings") as caught:
        run(config)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_going_back_and_resuming_gives_the_same_metrics(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", run={"keep_every": 1})
    run(config)
    end = metrics(tmp_path / "run")
    back = replace(config, run=replace(config.run, resume=str(tmp_path / "run" / "checkpoints" / "epoch_0001")))
    with pytest.raises(Stopped):
        run(back, StopAfter(3))
    assert not (tmp_path / "run" / "summary.json").exists()
    run(config)
    assert metrics(tmp_path / "run") == end
