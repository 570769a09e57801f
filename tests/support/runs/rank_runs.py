"""Small runs on several ranks, which tests and benches start by name (several_ranks.py); not a test itself."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets  # noqa: F401 (imported before the ranks are forked, not again by each of them)
import torch
from several_ranks import TIME_LIMIT
from small_run import StopAfter, small_config
from unlucky_train import UnluckyStop

from fastcpc import distributed
from fastcpc.config.load import load_config
from fastcpc.data.augment.batched import StrongAugmenter
from fastcpc.data.augment.batched_views import BatchedViews
from fastcpc.data.loaders.base import Batch
from fastcpc.distributed.process_group import whole_group
from fastcpc.engine import trainer
from fastcpc.engine.launch import train
from fastcpc.engine.learner import Learner
from fastcpc.engine.numerics import DTYPES, Numerics
from fastcpc.engine.outputs.run_dir import open_run_dir
from fastcpc.engine.scoring import score_samples
from fastcpc.engine.step_loop import Stopped, StopRequest
from fastcpc.errors import InputError, RunError


def train_small(
    folder: str, sections: str = "{}", stop_at: str = "-1", kind: str = "cpc_awr", *, stop: StopRequest | None = None
) -> None:
    """Train a small run as the command does. stop_at: the last rank requests a stop when it looks for the so manieth
    time."""
    config = small_config(Path(folder), kind, **json.loads(sections))
    if stop is None:
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


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Within the body, new tensors have this type."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


@contextmanager
def in_float64() -> Iterator[None]:
    """Within the body, training computes in float64: sums in another order then differ by 1e-15 instead of 1e-6.

    Views are made in float32 and then converted.
    """
    prepare = Numerics.prepare

    def narrow(function: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            with default_dtype(torch.float32):
                return function(*arguments, **named)

        return called

    make = narrow(BatchedViews.make)

    def wide_views(*arguments: Any) -> Any:
        index, views = make(*arguments)
        return index, tuple(view.double() for view in views)

    with pytest.MonkeyPatch.context() as patch, default_dtype(torch.float64):
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(Numerics, "prepare", lambda self, network: prepare(self, network.double()))
        patch.setattr(Numerics, "autocast", lambda self: nullcontext())
        patch.setattr(StrongAugmenter, "__init__", narrow(StrongAugmenter.__init__))
        patch.setattr(BatchedViews, "make", wide_views)
        patch.setitem(DTYPES, "fp32", torch.float64)
        yield


def train_in_float64(folder: str, sections: str) -> None:
    """Train a small run within ``in_float64``."""
    with in_float64():
        train_small(folder, sections)


def train_file(file: str) -> None:
    """Train the run of a config file."""
    config = load_config([Path(file)], [])
    with open_run_dir(config) as opened:
        train(config, opened, StopAfter())


def train_files_unlucky(files: str, accidents: str) -> None:
    """Train the runs of config files one after the other, in each start with an accident in one of them.

    files: JSON list. accidents: JSON list per start, [number of the file, accident as in unlucky_train.py]. A start
    that a signal stops fails, so that another follows.
    """
    start, planned = distributed.restarts(), json.loads(accidents)
    chosen, accident = planned[start] if start < len(planned) else (-1, None)
    for number, file in enumerate(json.loads(files)):
        config = load_config([Path(file)], [])
        if (Path(config.run.dir) / "summary.json").exists():
            continue
        stop_request = UnluckyStop(*accident) if number == chosen else StopRequest()
        with stop_request as stop, open_run_dir(config) as opened:
            train(config, opened, stop)


def checked(function: str, *arguments: str) -> None:
    """Call a function of this module under ``every_sample_scored_once``."""
    with every_sample_scored_once():
        globals()[function](*arguments)


@contextmanager
def every_sample_scored_once() -> Iterator[None]:
    """Within the body, each scoring pass checks that the ranks together got every sample exactly once."""

    def checked(networks: Any, batches: Iterator[Batch], labels_N: torch.Tensor, *rest: Any) -> Any:
        counts_N = torch.zeros(len(labels_N))

        def counted() -> Iterator[Batch]:
            for batch in batches:
                counts_N[batch.index] += 1
                yield batch

        scoring = score_samples(networks, counted(), labels_N, *rest)
        assert torch.equal(distributed.all_reduce_sum(counts_N, "test"), torch.ones(len(labels_N)))
        return scoring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "score_samples", checked)
        yield


def train_with_nan(folder: str, sections: str) -> None:
    """Train a small run in which a loss of network 2 is NaN in the second epoch."""
    honest, updates = Learner.update, 0

    def update(self: Any, losses: Any, index_B: Any) -> None:
        nonlocal updates
        updates += len(losses) > 1
        honest(self, (losses[0] * torch.nan, *losses[1:]) if updates == 2 and self.number == 2 else losses, index_B)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", update)
        train_small(folder, sections)


def held_elsewhere(folder: str) -> None:
    """Another process holds the run folder: every rank raises the same error."""
    with pytest.raises(InputError, match="is in use by another process") as caught:
        open_run_dir(small_config(Path(folder)))
    assert caught.value.on_all_ranks


def silence(folder: str) -> None:
    """The last rank stops answering in epoch 1. The others raise an error that names it and its last location.

    The timeout is short only from that moment on, so a slow machine changes nothing.
    """
    last = distributed.world_size() - 1
    reported = Path(folder) / "reported"
    config = small_config(Path(folder) / "run")

    class Silent(StopAfter):
        @property
        def requested(self) -> int:  # type: ignore[override]
            self.looks += 1
            if self.looks == 30:
                if distributed.rank() == last:
                    wait_for(reported)
                    raise RunError("woke up")
                shorten_timeout(1.0)
            return 0

    expected = "woke up"
    if distributed.rank() != last:
        expected = rf"no answer for 1 s \(parallel\.timeout\) in epoch 1, \w+ from rank {last} \(last seen in epoch 1, "
    try:
        with open_run_dir(config) as opened, pytest.raises(RunError, match=expected):
            train(config, opened, Silent())
    finally:
        reported.touch()


def shorten_timeout(seconds: float) -> None:
    """Wait at most this long for other ranks, from now on."""
    group = whole_group()
    group.timeout = seconds
    for part in (group.control, group.data):
        assert part is not None
        part.set_timeout(timedelta(seconds=seconds))


def wait_for(file: Path) -> None:
    """Until another process has made the file; its limit is only for what hangs."""
    deadline = time.monotonic() + TIME_LIMIT / 2
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} is missing"
        time.sleep(0.05)


def full_disk(folder: str) -> None:
    """The disk becomes full during training: one line on every rank, and no incomplete file."""
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


def count_traffic(folder: str, target: str) -> None:
    """Train a small run; rank 0 writes the bytes that it sent, by purpose."""
    train_small(folder)
    if distributed.is_rank0():
        Path(target).write_text(json.dumps(distributed.bytes_sent()))


def train_unlucky(folder: str, sections: str, accidents: str) -> None:
    """Train a small run with an accident in each start, as unlucky_train.py describes them."""
    start, planned = distributed.restarts(), json.loads(accidents)
    train_small(folder, sections, stop=UnluckyStop(*planned[start]) if start < len(planned) else None)
