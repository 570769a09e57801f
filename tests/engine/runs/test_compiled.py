"""Compiled runs: one graph a stage, the numbers of an uncompiled run, and nothing compiled again after the start."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import run, small_config
from small_stages import CONFIG, BareSteps, small_stages
from torch._dynamo.utils import counters

from fastcpc.engine import numerics
from fastcpc.engine.train_epoch import semi_supervised


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    numerics.compiled_once.cache_clear()
    counters.clear()
    yield
    torch.compiler.reset()
    numerics.compiled_once.cache_clear()


def test_each_function_is_compiled_once_per_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph each for both networks' warm-up, their semi-supervised step, the fixed network's guesses and inference.
    They serve full and short batches of both splits, while both cleaners are active, lambda_u rises and the learning
    rate drops.
    """
    monkeypatch.setattr(numerics, "BACKEND", "eager")
    run(replace(small_config(tmp_path / "run", train={"epochs": 5}), compile="default"))
    assert counters["stats"]["unique_graphs"] == 4


def twenty_steps(compile_mode: str) -> dict[str, Any]:
    """What network 1 and its losses are after 20 semi-supervised steps."""
    config = replace(CONFIG, compile=compile_mode, semisup=replace(CONFIG.semisup, batches_per_epoch=20))  # type: ignore[arg-type]
    training, (own, other) = small_stages(config)
    assert semi_supervised(own, other, training, BareSteps(), epoch=2, start=0) == 20
    return {"losses": torch.stack([loss for loss, _ in own.steps]), "sums": own.sums, **own.network.state_dict()}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it loads inductor
def test_compiled_steps_equal_uncompiled_ones() -> None:
    plain, compiled = twenty_steps("false"), twenty_steps("default")
    assert counters["stats"]["unique_graphs"] == 2  # the step and the guesses of the fixed network
    assert plain.keys() == compiled.keys()
    for name in plain:  # rounding, which 20 steps enlarge
        torch.testing.assert_close(
            compiled[name], plain[name], rtol=1e-3, atol=1e-4, msg=lambda text, at=name: f"{at}: {text}"
        )
