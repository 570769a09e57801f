"""The keys of state.pt: what a run writes is what checkpoint/format.py lists, and a missing key is named."""

from pathlib import Path

import pytest
from small_run import run, small_config

from fastcpc.engine.checkpoint.format import CheckpointState, LaterLearnerKeys, LearnerState, checked_state, load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.errors import RunError


def test_state_has_the_keys_of_the_schema(tmp_path: Path) -> None:
    run(small_config(tmp_path / "run", train={"epochs": 1}))
    path = find_checkpoint(tmp_path / "run", "latest")
    _, state = load(path)
    assert state.keys() == CheckpointState.__annotations__.keys()
    own = LearnerState.__required_keys__
    assert all(learner.keys() == own for learner in state["members"])
    del state["past"], state["members"][1]["sums"]
    with pytest.raises(RunError, match=r"epoch_0000 is damaged: state\.pt lacks past, members\.sums$"):
        checked_state(path, state)


def test_only_an_average_of_weights_and_the_guard_add_keys(tmp_path: Path) -> None:
    run(small_config(tmp_path / "run", train={"epochs": 2}, ema={"decay": 0.9}, cleaner={"guard": "auto"}))
    _, state = load(find_checkpoint(tmp_path / "run", "latest"))
    own = LearnerState.__required_keys__ | LaterLearnerKeys.__annotations__.keys()
    assert all(learner.keys() == own for learner in state["members"])
