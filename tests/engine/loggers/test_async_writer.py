"""Checkpoints written while the run continues: what they hold, when an error is reported, and what is left."""

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from small_run import assert_same_run, run, small_config

from fastcpc.engine import trainer
from fastcpc.engine.checkpoint import store
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.engine.learner import Learner
from fastcpc.engine.loggers.async_writer import AsyncWriter
from fastcpc.errors import RunError


def test_jobs_run_in_order_on_another_thread() -> None:
    begun, done, names = threading.Event(), [], []

    def first() -> None:
        begun.wait(60)
        names.append(threading.current_thread().name)
        done.append(1)

    with AsyncWriter() as writer:
        writer.begin(first)
        assert not done
        begun.set()
        writer.begin(lambda: done.append(2))
        writer.begin(lambda: done.append(3))
    assert done == [1, 2, 3] and names == ["fastcpc-writer"]


def fail() -> None:
    raise RunError("the disk is full")


def test_error_is_raised_once_at_the_next_call(caplog: pytest.LogCaptureFixture) -> None:
    writer, done = AsyncWriter(), []
    writer.begin(fail)
    with pytest.raises(RunError, match="the disk is full"):
        writer.begin(lambda: done.append(1))
    writer.finish()
    assert not done
    with pytest.raises(RunError, match="the disk is full"), AsyncWriter() as writer:
        writer.begin(fail)
    with caplog.at_level(logging.WARNING, "fastcpc"), suppress(ValueError), AsyncWriter() as writer:
        writer.begin(fail)
        raise ValueError("another error, which is the one that is told")
    assert "the disk is full" in caplog.text


def test_checkpoint_has_the_state_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each large checkpoint is held back until the next epoch has taken a step."""
    config = small_config(tmp_path / "at_once", run={"keep_every": 1})
    run(config)
    monkeypatch.setattr(trainer, "SYNCHRONOUS_BYTES", 0)
    moved_on, honest_update, honest_finish = threading.Event(), Learner.update, AsyncWriter.finish
    honest_write, threads = store.serialise, []

    def update(self: Learner, *arguments: Any) -> None:
        honest_update(self, *arguments)
        moved_on.set()

    def finish(self: AsyncWriter) -> None:
        moved_on.set()
        honest_finish(self)
        moved_on.clear()

    def write(*arguments: Any) -> Any:
        assert moved_on.wait(60)
        threads.append(threading.current_thread().name)
        return honest_write(*arguments)

    monkeypatch.setattr(Learner, "update", update)
    monkeypatch.setattr(AsyncWriter, "finish", finish)
    monkeypatch.setattr(store, "serialise", write)
    run(small_config(tmp_path / "beside", run={"keep_every": 1}))
    assert threads == ["fastcpc-writer"] * 4
    assert_same_run(tmp_path / "at_once", tmp_path / "beside")
    for epoch in range(4):
        name = f"checkpoints/epoch_{epoch:04d}/net1.safetensors"
        assert (tmp_path / "at_once" / name).read_bytes() == (tmp_path / "beside" / name).read_bytes(), epoch
        momentum = [
            load(tmp_path / run_name / "checkpoints" / f"epoch_{epoch:04d}")[1]["members"][0]["optimizer"]["state"]
            for run_name in ("at_once", "beside")
        ]
        assert all((momentum[0][i]["momentum_buffer"] == momentum[1][i]["momentum_buffer"]).all() for i in momentum[0])


def test_failed_write_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = CheckpointStore.write

    def write(self: CheckpointStore, packed: Any, *, best: bool) -> Path:
        if packed.epoch == 1:
            raise RunError("cannot write: no space left on the device")
        return honest(self, packed, best=best)

    monkeypatch.setattr(trainer, "SYNCHRONOUS_BYTES", 0)
    monkeypatch.setattr(CheckpointStore, "write", write)
    with pytest.raises(RunError, match="no space left"):
        run(small_config(tmp_path / "run"))
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best", "epoch_0000", "latest"]
    assert "fastcpc-writer" not in [thread.name for thread in threading.enumerate()]
