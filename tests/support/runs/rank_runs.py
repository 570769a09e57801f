"""Small runs on several ranks, for tests and benches that start them by name; not a test itself."""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_checks import arithmetic
from small_run import StopAfter, small_config
from unlucky_train import plan

from fastcpc import distributed
from fastcpc.config.load import load_config
from fastcpc.data.loaders.base import Batch
from fastcpc.engine import trainer
from fastcpc.engine.launch import train
from fastcpc.engine.learner import Learner
from fastcpc.engine.outputs.run_dir import open_run_dir
from fastcpc.engine.scoring import score_samples
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError, RunError


def train_small(folder: str, sections: str = "{}", stop_at: str = "-1", kind: str = "cpc_awr") -> None:
    """A small run, as the command does it; or until the stop that rank 1 asks for at a look of its own."""
    config = small_config(Path(folder), kind, **json.loads(sections))
    stop = StopAfter(int(stop_at) if distributed.rank() == distributed.world_size() - 1 else -1)
    with open_run_dir(config) as opened:
        try:
            train(config, opened, stop)
        except Stopped as stopped:
            if stopped.signum != 15:
                raise
            logging.getLogger("fastcpc").info("stopped")
            return
    assert int(stop_at) < 0, "the run ended before it was to stop"


def train_file(file: str) -> None:
    """A run of this config."""
    config = load_config([Path(file)], [])
    with open_run_dir(config) as opened:
        train(config, opened, StopAfter())


def scored_once(*arguments: Any) -> Any:
    """A scoring pass; the ranks together must have been served every sample once."""
    networks, batches, labels_N, *rest = arguments
    counts_N = torch.zeros(len(labels_N))

    def noted() -> Iterator[Batch]:
        for batch in batches:
            counts_N[batch.index] += 1
            yield batch

    scoring = score_samples(networks, noted(), labels_N, *rest)
    assert torch.equal(distributed.all_reduce_sum(counts_N, "test"), torch.ones(len(labels_N)))
    return scoring


def train_spoilt(folder: str, sections: str) -> None:
    """A small run in which a loss of network 2 is no number in the second epoch."""
    honest, updates = Learner.update, 0

    def spoilt(self: Any, losses: Any, index_B: Any) -> None:
        nonlocal updates
        updates += len(losses) > 1
        honest(self, (losses[0] * torch.nan, *losses[1:]) if updates == 2 and self.number == 2 else losses, index_B)

    Learner.update = spoilt  # type: ignore[method-assign]
    try:
        train_small(folder, sections)
    finally:
        Learner.update = honest  # type: ignore[method-assign]


def everything(jobs: str) -> None:
    """``arithmetic``, then runs one after the other; jobs: JSON list of "train", "file" or "spoilt" and its
    arguments."""
    arithmetic()
    trainer.score_samples = scored_once
    for name, *job in json.loads(jobs):
        {"train": train_small, "file": train_file, "spoilt": train_spoilt}[name](*job)
        sys.stdout.flush()


def held_elsewhere(folder: str) -> None:
    """Another process holds the run: no rank goes on, and all say the same."""
    with pytest.raises(InputError, match="is in use by another process") as caught:
        open_run_dir(small_config(Path(folder)))
    assert caught.value.on_all_ranks


def silence(folder: str) -> None:
    """The last rank falls silent in epoch 1; rank 0 waits for as long as it may, then says who it was, and where."""
    last = distributed.world_size() - 1
    told = Path(folder) / "told"
    config = small_config(Path(folder) / "run", parallel={"timeout": 8.0})

    class Silent(StopAfter):
        @property
        def requested(self) -> int:  # type: ignore[override]
            self.looks += 1
            if distributed.rank() == last and self.looks == 30:
                deadline = time.monotonic() + 120
                while not told.exists() and time.monotonic() < deadline:
                    time.sleep(0.1)
                raise RunError("woke up")
            return 0

    expected = "woke up"
    if distributed.rank() != last:
        expected = rf"no answer for 8 s \(parallel\.timeout\) in epoch 1, \w+ from rank {last} \(last seen in epoch 1, "
    try:
        with open_run_dir(config) as opened, pytest.raises(RunError, match=expected):
            train(config, opened, Silent())
    finally:
        told.touch()


def full_disk(folder: str) -> None:
    """The disk fills up while the run trains: one line on every rank, and nothing half-written."""
    config = small_config(Path(folder) / "run")
    filler = Path(folder) / "filler"

    class Filling(StopAfter):
        @property
        def requested(self) -> int:  # type: ignore[override]
            self.looks += 1
            if distributed.is_rank0() and self.looks == 40:
                with suppress(OSError), open(filler, "wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 10_000)
            return 0

    with (
        open_run_dir(config) as opened,
        pytest.raises(RunError, match=r"cannot write .*: no space left on the device") as caught,
    ):
        train(config, opened, Filling())
    assert caught.value.on_all_ranks and "\n" not in str(caught.value)


def problems(folder: str, disk: str) -> None:
    """Several of the above, in one start."""
    held_elsewhere(str(Path(folder) / "held"))
    if disk:
        full_disk(disk)
    silence(folder)


def count_traffic(folder: str, target: str) -> None:
    """A small run; rank 0 writes what it has sent, by purpose."""
    train_small(folder)
    if distributed.is_rank0():
        Path(target).write_text(json.dumps(distributed.bytes_sent()))


def train_unlucky(folder: str, sections: str, accidents: str) -> None:
    """A small run with an accident in each start, as unlucky_train.py describes them."""
    start, planned = distributed.restarts(), json.loads(accidents)
    if start < len(planned):
        plan(*planned[start])
    train_small(folder, sections)
