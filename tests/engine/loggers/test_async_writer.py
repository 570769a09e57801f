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
from fastcpc.engine.loggers.async_writer import MOST_JOBS, AsyncWriter
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.engine.outputs.sample_table import SampleTable
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


def test_error_is_raised_once_and_drops_the_jobs_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    writer, begun, done = AsyncWriter(), threading.Event(), []

    def fail_late() -> None:
        begun.wait(60)
        fail()

    writer.begin(fail_late)
    writer.begin(lambda: done.append(1))
    begun.set()
    with pytest.raises(RunError, match="the disk is full"):
        writer.finish()
    writer.finish()
    assert not done
    with pytest.raises(RunError, match="the disk is full"), AsyncWriter() as writer:
        writer.begin(fail)
    with caplog.at_level(logging.WARNING, "fastcpc"), suppress(ValueError), AsyncWriter() as writer:
        writer.begin(fail)
        raise ValueError("another error, which is the one that is told")
    assert "the disk is full" in caplog.text


def test_few_jobs_are_unfinished_at_a_time() -> None:
    """A slow disk makes the caller wait: queued jobs hold copies in memory."""
    all_begun, seen = threading.Event(), []
    with AsyncWriter() as writer:
        writer.begin(lambda: seen.append(all_begun.wait(0.2)))
        for _ in range(MOST_JOBS):
            writer.begin(lambda: None)
        all_begun.set()
    assert seen == [False]


def test_any_error_becomes_one_line() -> None:
    def job() -> None:
        {}["absent"]

    with pytest.raises(RunError) as caught, AsyncWriter() as writer:
        writer.begin(job)
    text = str(caught.value)
    assert text.startswith("the run's files: cannot be made (KeyError: 'absent', in job of ") and "\n" not in text
    assert text.endswith("); repeat the command to resume from the latest checkpoint")


def test_files_of_an_epoch_are_written_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cleaning found is on disk before the epoch's line, and both before its checkpoint; also on a slow disk."""
    order: list[Any] = []
    evaluated, logged = threading.Event(), threading.Event()
    evaluate = trainer.Trainer.evaluate
    monkeypatch.setattr(trainer.Trainer, "evaluate", lambda self: (evaluate(self), evaluated.set()))

    def noted(owner: type, name: str, what: Any) -> None:
        honest = getattr(owner, name)

        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            if what == "table" and threading.current_thread() is not threading.main_thread():
                evaluated.clear()
                logged.clear()
                assert evaluated.wait(60)
                logged.wait(0.2)  # the line must not come in this time
            result = honest(self, *arguments, **options)
            if what == "line":
                logged.set()
            order.append((what, threading.current_thread() is threading.main_thread()))
            return result

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(trainer, "SYNCHRONOUS_BYTES", 0)
    noted(SampleTable, "write", "table")
    noted(RunDir, "append_json_line", "line")
    noted(CheckpointStore, "write", "checkpoint")
    run(small_config(tmp_path / "run", train={"epochs": 3}))
    line, checkpoint, table = ("line", True), ("checkpoint", False), ("table", False)
    assert order == [line, checkpoint, table, line, checkpoint, table, line, checkpoint, ("table", True)]


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
