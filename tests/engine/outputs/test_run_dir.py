"""The run's folder: what it writes and cuts, what it knows of a finished run, and a disk that is full."""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_disk import small_disk_in

from fastcpc.config.load import load_config, to_yaml
from fastcpc.config.schema import Config, RunConfig
from fastcpc.engine.loggers.run_log import RunLog
from fastcpc.engine.outputs.run_dir import RunDir, plain_json
from fastcpc.errors import RunError

logger = logging.getLogger("fastcpc")


def config_at(path: Path, **run: Any) -> Config:
    return Config(run=RunConfig(dir=str(path), **run))


def test_new_folder_and_its_parents_are_created(tmp_path: Path) -> None:
    config = config_at(tmp_path / "a" / "b")
    with RunDir(config) as folder:
        assert folder.path == tmp_path / "a" / "b"
        logger.info("hello %s", "there")
    assert load_config([folder.path / "config.yaml"], []) == config
    assert (folder.path / "config.yaml").read_text() == to_yaml(config)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ INFO    hello there\n", (folder.path / "train.log").read_text())
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["python"].startswith("3.")
    assert environment["cores"] >= 1
    assert environment["command"] == sys.argv
    assert environment["gpus"] is not None


def test_log_is_appended_until_the_folder_closes(tmp_path: Path) -> None:
    level = logger.level
    for word in ("one", "two"):
        with RunDir(config_at(tmp_path / "run")):
            logger.info(word)
    logger.warning("three")
    text = (tmp_path / "run" / "train.log").read_text()
    assert text.count("\n") == 2
    assert "one" in text
    assert "two" in text
    assert logger.level == level
    assert not any(isinstance(handler, logging.FileHandler) for handler in logger.handlers)


@pytest.mark.parametrize(("error", "trace"), [(RunError("the disk is full"), False), (KeyError("oops"), True)])
def test_error_of_a_run_is_in_its_log(tmp_path: Path, error: Exception, trace: bool) -> None:
    with pytest.raises(type(error)), RunDir(config_at(tmp_path / "run")):
        raise error
    text = (tmp_path / "run" / "train.log").read_text()
    assert f"ERROR   ended: {error}" in text
    assert ("Traceback" in text) == trace


def test_summary_marks_a_finished_run(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    with RunDir(config) as folder:
        assert folder.finished_summary() is None
        for text in ("", "[1]", '{"finished": false}', '{"finished": "yes"}', '{"finis'):
            (folder.path / "summary.json").write_text(text)
            assert folder.finished_summary() is None
        folder.write_json("summary.json", {"best_top1": float("nan"), "finished": True})
        folder.write_json("environment.json", {"what": "it was trained on"})
    with RunDir(config) as folder:
        assert folder.finished_summary() == {"best_top1": None, "finished": True}
    assert json.loads((tmp_path / "run" / "environment.json").read_text()) == {"what": "it was trained on"}
    with RunDir(config_at(tmp_path / "run", resume="/nope")) as folder:
        assert folder.finished_summary() is not None  # a path that may not even exist deletes nothing
        folder.mark_unfinished()
        assert folder.finished_summary() is None


def test_metrics_lines_are_appended_and_truncated(tmp_path: Path) -> None:
    with RunDir(config_at(tmp_path / "run")) as folder:
        assert folder.truncate_json_lines("m.jsonl", 3) == 0
        for epoch in range(6):
            folder.append_json_line("m.jsonl", {"epoch": epoch, "x": float("inf")})
        path = folder.path / "m.jsonl"
        assert json.loads(path.read_text().splitlines()[5]) == {"epoch": 5, "x": None}
        assert folder.truncate_json_lines("m.jsonl", 4) == 4
        path.write_text(path.read_text() + '{"epoch": 4')  # a kill in the middle of a line
        assert folder.truncate_json_lines("m.jsonl", 9) == 4
        assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
        path.write_text(path.read_text() + '{"epoch": 4}')  # ... just before its end
        assert folder.truncate_json_lines("m.jsonl", 9) == 4
        path.write_text('{"epoch": 0}\nrubbish\n{"epoch": 1}\n')
        assert folder.truncate_json_lines("m.jsonl", 9) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    with small_disk_in(tmp_path, "128k") as disk:
        yield disk


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (disk / "filler").write_bytes(b"x" * 200_000)


def test_full_disk_leaves_no_incomplete_line(small_disk: Path) -> None:
    with RunDir(config_at(small_disk / "run")) as folder:
        folder.append_json_line("m.jsonl", {"epoch": 0})
        before = sorted(item.name for item in folder.path.iterdir())
        fill(small_disk)
        text = "x" * 20_000
        with pytest.raises(
            RunError, match=r"cannot write .*m\.jsonl: no space left on the device \(20\.0 kB needed, 0\.0 kB free\)"
        ):
            folder.append_json_line("m.jsonl", {"epoch": 1, "text": text})
        assert (folder.path / "m.jsonl").read_text() == '{"epoch": 0}\n'
        with pytest.raises(RunError, match=r"cannot write .*s\.json: no space left on the device"):
            folder.write_json("s.json", {"text": text})
        assert sorted(item.name for item in folder.path.iterdir()) == before


def test_unwritable_log_does_not_end_the_run(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with RunDir(config_at(small_disk / "run")) as folder:
        fill(small_disk)
        for _ in range(3):
            logger.info("x" * 9000)
    assert capfd.readouterr().err == f"warning: {folder.path}/train.log cannot be written any more\n"


# TensorBoard's own thread fails as well, in its own way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_unwritable_events_give_one_line(small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = set(threading.enumerate())
    with RunDir(config_at(small_disk / "run")) as folder:
        (folder.path / "metrics.jsonl").symlink_to(tmp_path / "elsewhere")
        with RunLog(folder, 900) as log:
            log.start(0)
            fill(small_disk)

            def resume() -> None:
                for epoch in range(900):
                    log.epoch({"epoch": epoch, "test_top1": 1.0})

            with pytest.raises(RunError, match=r"cannot write .*tensorboard: no space left on the device"):
                resume()
    assert caplog.messages[-1] == "TensorBoard's last events are lost: No space left on device"
    for thread in set(threading.enumerate()) - others:
        thread.join(60)  # or its end would be reported in another test


def test_json_has_plain_types_only() -> None:
    value = {
        "a": np.float32(0.5),
        "b": (np.int64(3), float("nan")),
        1: np.array([[True], [False]]),
        "n": -np.inf,
        "z": None,
    }
    assert plain_json(value) == {"a": 0.5, "b": [3, None], "1": [[True], [False]], "n": None, "z": None}
    assert json.dumps(plain_json(value))
