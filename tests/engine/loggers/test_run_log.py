"""metrics.jsonl, TensorBoard, console lines, progress."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

from fastcpc.config.schema import Config, RunConfig
from fastcpc.engine.loggers import progress
from fastcpc.engine.loggers.progress import Progress, clock_text
from fastcpc.engine.loggers.run_log import ConsoleHandler, RunLog, console_line, metrics_line, result_text
from fastcpc.engine.outputs.run_dir import RunDir

METRICS: dict[str, Any] = {
    "epoch": 3, "phase": "train", "lr": 0.02, "test_top1": 94.1234, "test_top5": 99.0, "net1_top1": 93.8,
    "net2_top1": 93.7, "prototype_top1": 92.0, "labelled": [25123, 24988],
    "auc_gmm": [0.981, 0.98], "auc_cpc": [0.985, float("nan")], "partition_precision": [0.9, 0.91],
    "partition_recall": [0.95, 0.94],
    "seconds": {"score": 1.0, "clean": 0.5, "train": 28.0, "eval": 1.7, "total": 31.2}, "images_per_second": 12345.6,
    "data_wait": 0.034,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir(Config(run=RunConfig(dir=str(tmp_path / "run")))) as opened:
        yield opened


def lines(folder: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def test_metrics_line_has_every_key_in_order() -> None:
    line = metrics_line(
        {"epoch": 0, "phase": "warmup", "test_top1": np.float64(50.0), "lr": float("nan"), "loss_total": [1.0]}
    )
    assert list(line) == [
        "epoch", "phase", "lr", "test_top1", "test_top5", "net1_top1", "net2_top1", "prototype_top1", "labelled",
        "auc_gmm", "auc_cpc", "partition_precision", "partition_recall", "seconds", "images_per_second", "data_wait",
        "training_flops", "loss_total",
    ]  # fmt: skip
    assert line["test_top1"] == 50.0
    assert line["lr"] is None
    assert line["labelled"] is None
    assert line["loss_total"] == [1.0]
    assert line["seconds"] == dict.fromkeys(("score", "clean", "train", "eval", "total"))


def test_nan_is_null_in_the_file(folder: RunDir) -> None:
    with RunLog(folder, 10) as log:
        returned = log.epoch(METRICS)
    assert lines(folder) == [returned]
    assert returned["auc_cpc"] == [0.985, None]
    assert returned["test_top1"] == 94.1234
    assert "NaN" not in (folder.path / "metrics.jsonl").read_text()


def test_resumed_run_truncates_lines_and_events(folder: RunDir) -> None:
    with RunLog(folder, 10) as log:
        for epoch in range(5):
            log.epoch({"epoch": epoch, "test_top1": 10.0 + epoch})
    with RunLog(folder, 10) as log:
        log.start(3)
        assert [line["epoch"] for line in lines(folder)] == [0, 1, 2]
        log.epoch({"epoch": 3, "test_top1": 53.0})
    assert [line["test_top1"] for line in lines(folder)] == [10, 11, 12, 53]
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("test_top1")] == [(0, 10), (1, 11), (2, 12), (3, 53)]


def test_first_epoch_truncates_lines(folder: RunDir) -> None:
    for value in (1.0, 2.0):
        with RunLog(folder, 10) as log:
            log.epoch({"epoch": 0, "test_top1": value})
    assert [line["test_top1"] for line in lines(folder)] == [2.0]


def test_tensorboard_has_every_metric(folder: RunDir) -> None:
    with RunLog(folder, 10) as log:
        log.epoch(METRICS)
    tags = EventAccumulator(str(folder.path / "tensorboard")).Reload().Tags()["scalars"]
    assert {"test_top1", "lr", "labelled/net1", "labelled/net2", "auc_cpc/net1", "seconds/train"} <= set(tags)
    assert "auc_cpc/net2" not in tags
    assert "epoch" not in tags
    assert "phase" not in tags


def test_console_line_by_value() -> None:
    assert console_line(metrics_line(METRICS), 450) == (
        "   3/450   train    94.12 (93.80 93.70)  92.00   25123  24988  0.981 0.980  0.985     -     0.02    31.2   12346     3%"  # noqa: E501
    )
    unknown = console_line(metrics_line({"epoch": 0, "phase": "warmup"}), 450)
    assert unknown == (
        "   0/450   warmup       - (    -     -)      -       -      -      -     -      -     -        -       -       -      -"  # noqa: E501
    )


def test_header_is_aligned_with_its_columns(folder: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    with RunLog(folder, 450) as log:
        for epoch in range(21):
            log.epoch({**METRICS, "epoch": epoch})
    assert len(caplog.messages) == 23  # the header again after 20
    header, line = caplog.messages[0], caplog.messages[1]
    assert caplog.messages[21] == header
    assert len(line) == len(header) == 119
    for word, end in (
        ("|X1|", "25123"),
        ("|X2|", "24988"),
        ("lr", "    0.02"),
        ("  s  ", "31.2  "),
        ("img/s", "12346"),
        ("wait", "3%"),
    ):
        assert header.index(word) + len(word) == line.index(end) + len(end), word
    assert "0.981 0.980" in (folder.path / "train.log").read_text()


def test_end_of_a_run_is_logged(folder: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(folder, 3)
    log.finished({"best_top1": 97.5, "last10_top1": 96.25, "final_top1": None})
    assert caplog.messages == [
        f"finished: top-1 best 97.50, mean of the last 10 96.25, final -; everything is in {folder.path}"
    ]
    assert result_text({}) == "top-1 best -, mean of the last 10 -, final -"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stage_logs_a_line_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fastcpc")
    clock = Clock()
    with Progress(30.0, bar=False, clock=clock).stage("warm-up", 400) as stage:
        for _ in range(100):
            clock.now += 1.0
            stage.advance(64)
    assert caplog.messages == [
        "warm-up: 30/400 steps, 64 images/s, ETA 6:10",
        "warm-up: 60/400 steps, 64 images/s, ETA 5:40",
        "warm-up: 90/400 steps, 64 images/s, ETA 5:10",
    ]


def test_resumed_stage_counts_from_its_step(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fastcpc")
    clock = Clock()
    with Progress(10.0, bar=False, clock=clock).stage("train", 400, done=300) as stage:
        clock.now += 10.0
        stage.advance(640)
    assert caplog.messages == ["train: 301/400 steps, 64 images/s, ETA 16:30"]


def test_stage_without_steps_by_value() -> None:
    clock = Clock()
    with Progress(30.0, bar=False, clock=clock).stage("score", 0) as stage:
        assert stage.images_per_second() == 0.0
        assert stage.line(clock.now) == "score: 0/0 steps, 0 images/s, ETA 0:00"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (-5, "0:00")]
)
def test_durations_as_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_progress_bar_needs_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().stage("score", 2) as stage:
        stage.advance(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "tqdm", partial(tqdm, mininterval=0))  # by default one drawing per 0.1 s
    with Progress().stage("score", 2) as stage:
        stage.advance(5)
    assert "score:" in (shown := capsys.readouterr().err)
    assert "1/2" in shown
    assert "img/s" in shown


def test_console_prints_info_to_stdout_and_warnings_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    handler = ConsoleHandler()
    for level in (logging.INFO, logging.WARNING):
        handler.handle(logging.LogRecord("fastcpc", level, "", 0, "a %s", ("b",), None))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("a b\n", "warning: a b\n")


def test_closed_pipe_ends_printing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    handler = ConsoleHandler()
    for _ in range(3):
        handler.handle(logging.LogRecord("fastcpc", logging.INFO, "", 0, "text", (), None))
    monkeypatch.undo()
    with pytest.raises(BrokenPipeError):
        stream.close()
