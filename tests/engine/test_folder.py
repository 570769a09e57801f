"""The run's folder: who may open it, what it writes, what it refuses in one line."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nobody import as_nobody
from small_disk import small_disk_in

from fastcpc.config.load import load_config, to_yaml
from fastcpc.config.schema import Config, RunConfig, TrainConfig
from fastcpc.engine.checkpoint import CheckpointStore
from fastcpc.engine.folder import RunFolder, plain_json
from fastcpc.engine.log import RunLog
from fastcpc.engine.same_settings import changed_settings
from fastcpc.errors import InputError, RunError

logger = logging.getLogger("fastcpc")


def config_at(path: Path, **run: Any) -> Config:
    return Config(run=RunConfig(dir=str(path), **run))


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as caught:
        RunFolder(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_new_folder_and_its_parents_are_made(tmp_path: Path) -> None:
    config = config_at(tmp_path / "a" / "b")
    with RunFolder(config) as folder:
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


def test_the_log_goes_on_and_ends_with_the_folder(tmp_path: Path) -> None:
    level = logger.level
    for word in ("one", "two"):
        with RunFolder(config_at(tmp_path / "run")):
            logger.info(word)
    logger.warning("three")
    text = (tmp_path / "run" / "train.log").read_text()
    assert text.count("\n") == 2
    assert "one" in text
    assert "two" in text
    assert logger.level == level
    assert not any(isinstance(handler, logging.FileHandler) for handler in logger.handlers)


@pytest.mark.parametrize(("error", "trace"), [(RunError("the disk is full"), False), (KeyError("oops"), True)])
def test_how_a_run_failed_stands_in_its_log(tmp_path: Path, error: Exception, trace: bool) -> None:
    with pytest.raises(type(error)), RunFolder(config_at(tmp_path / "run")):
        raise error
    text = (tmp_path / "run" / "train.log").read_text()
    assert f"ERROR   ended: {error}" in text
    assert ("Traceback" in text) == trace


def test_the_same_config_opens_it_again(tmp_path: Path) -> None:
    RunFolder(config_at(tmp_path / "run")).close()
    again = replace(config_at(tmp_path / "run", keep_every=5, name="other"), device="cpu")
    RunFolder(again).close()
    assert load_config([tmp_path / "run" / "config.yaml"], []) == again


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    RunFolder(config).close()
    CheckpointStore(tmp_path / "run", 0).save(0, [], {}, best=True)
    other = replace(config, train=TrainConfig(lr=0.5, epochs=7), precision="fp32", run=replace(config.run, seed=9))
    message = refusal(other)
    for part in ("run.seed (1 there, 9 now)", "train.epochs (450 there, 7 now)", "train.lr (0.02 there, 0.5 now)"):
        assert part in message
    assert "precision ('auto' there, 'fp32' now); give another run.dir" in message
    assert load_config([tmp_path / "run" / "config.yaml"], []) == config
    assert len(changed_settings(config, other)) == 4


def test_a_start_that_failed_before_its_first_checkpoint_binds_nobody(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    RunFolder(config).close()
    other = replace(config, train=TrainConfig(lr=0.5))
    RunFolder(other).close()
    assert load_config([tmp_path / "run" / "config.yaml"], []) == other


def test_where_things_lie_may_change_and_is_saved(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    RunFolder(config).close()
    CheckpointStore(tmp_path / "run", 0).save(0, [], {}, best=True)
    moved = replace(config, data=replace(config.data, root="/elsewhere"), run=replace(config.run, resume="/a/path"))
    RunFolder(moved).close()
    saved = load_config([tmp_path / "run" / "config.yaml"], [])
    assert saved.data.root == "/elsewhere"
    assert saved.run.resume == "auto"  # the saved config goes on from the run's own checkpoints


def test_never_refuses_a_run_and_takes_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = config_at(tmp_path / "run", resume="never")
    RunFolder(config).close()
    assert "run.resume=never, but" in (message := refusal(config))
    assert "run.resume=auto" in message


def make_file(path: Path) -> None:
    path.write_text("x")


def make_foreign(path: Path) -> None:
    path.mkdir()
    for name in ("thesis.tex", "photo.png", "b", "a"):
        (path / name).write_text("x")


def make_hidden(path: Path) -> None:
    path.mkdir()
    (path / ".bashrc").write_text("x")


def make_other_config(path: Path) -> None:
    path.mkdir()
    (path / "config.yaml").write_text("lightning: 1\n")


def make_broken_config(path: Path) -> None:
    path.mkdir()
    (path / "config.yaml").write_text("train: [1\n")


def make_file_parent(path: Path) -> None:
    path.parent.mkdir()
    path.parent.rmdir()
    path.parent.write_text("x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_file, r"run\.dir: .*/p/run is a file, not a folder; give another run\.dir"),
        (
            make_foreign,
            r"run\.dir: .* holds files that are not a run's \(a, b, photo\.png, \.\.\.\); give an empty or new",
        ),
        (make_hidden, r"run\.dir: .* holds files that are not a run's \(\.bashrc\); give an empty or new folder"),
        (
            make_other_config,
            r"run\.dir: .*config\.yaml is not a config of this program \(.*lightning.*\); give another",
        ),
        (make_broken_config, r"run\.dir: .*config\.yaml is not a config of this program \(.*\); give another run\.dir"),
    ],
)
def test_what_is_not_a_run_is_refused_untouched(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "p" / "run"
    path.parent.mkdir()
    make(path)
    before = {item: item.read_bytes() for item in path.rglob("*")} if path.is_dir() else {path: path.read_bytes()}
    assert re.search(message, refusal(config_at(path)))
    after = {item: item.read_bytes() for item in path.rglob("*") if item.name != ".lock"} if path.is_dir() else before
    assert after == before
    if "files that are not" in message:
        assert not (path / ".lock").exists()


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("x")
    assert re.search(r"run\.dir: .*/p/run cannot be used: Not a directory", refusal(config_at(tmp_path / "p" / "run")))


def test_an_overlong_name_is_refused(tmp_path: Path) -> None:
    assert "cannot be used: File name too long" in refusal(config_at(tmp_path / ("x" * 300)))


@pytest.mark.parametrize("run", ["run", "run/new"])
def test_a_folder_without_permission_is_refused(tmp_path: Path, run: str) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    (tmp_path / "run").mkdir(mode=0o555)
    assert re.search(
        r"run\.dir: .* cannot be used: Permission denied; give another run\.dir",
        as_nobody(lambda: refusal(config_at(tmp_path / run))),
    )


HOLDER = """
import sys, time
from pathlib import Path
from fastcpc.config.schema import Config, RunConfig
from fastcpc.engine.folder import RunFolder
with RunFolder(Config(run=RunConfig(dir=sys.argv[1]))):
    print("open", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, config.run.dir], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        assert f"is in use by another process (pid {holder.pid} on " in refusal(config)
        assert "is in use by another process" in refusal(config)  # the refusal itself broke no lock
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
    RunFolder(config).close()  # a killed holder holds nothing


def test_a_killed_start_does_not_block_the_next(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / "run"
    path.mkdir()
    (path / ".lock").write_text(f"{dead.pid} on here\n")
    (path / f".config.yaml.tmp-{dead.pid}").write_text("run:")
    (path / f".eval_test_latest.json.tmp-{os.getppid()}").write_text("{")
    RunFolder(config_at(path)).close()
    assert not (path / f".config.yaml.tmp-{dead.pid}").exists()
    assert (path / f".eval_test_latest.json.tmp-{os.getppid()}").exists()  # its writer lives


def test_a_finished_run_is_known(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    with RunFolder(config) as folder:
        assert folder.finished_summary() is None
        for text in ("", "[1]", '{"finished": false}', '{"finished": "yes"}', '{"finis'):
            (folder.path / "summary.json").write_text(text)
            assert folder.finished_summary() is None
        folder.write_json("summary.json", {"best_top1": float("nan"), "finished": True})
        folder.write_json("environment.json", {"what": "it was trained on"})
    with RunFolder(config) as folder:
        assert folder.finished_summary() == {"best_top1": None, "finished": True}
    assert json.loads((tmp_path / "run" / "environment.json").read_text()) == {"what": "it was trained on"}
    with RunFolder(config_at(tmp_path / "run", resume="/nope")) as folder:
        assert folder.finished_summary() is not None  # a path that may not even exist deletes nothing
        folder.unfinish()
        assert folder.finished_summary() is None


def test_lines_are_appended_and_cut(tmp_path: Path) -> None:
    with RunFolder(config_at(tmp_path / "run")) as folder:
        assert folder.cut_json_lines("m.jsonl", 3) == 0
        for epoch in range(6):
            folder.append_json_line("m.jsonl", {"epoch": epoch, "x": float("inf")})
        path = folder.path / "m.jsonl"
        assert json.loads(path.read_text().splitlines()[5]) == {"epoch": 5, "x": None}
        assert folder.cut_json_lines("m.jsonl", 4) == 4
        path.write_text(path.read_text() + '{"epoch": 4')  # a kill in the middle of a line
        assert folder.cut_json_lines("m.jsonl", 9) == 4
        assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
        path.write_text(path.read_text() + '{"epoch": 4}')  # ... just before its end
        assert folder.cut_json_lines("m.jsonl", 9) == 4
        path.write_text('{"epoch": 0}\nrubbish\n{"epoch": 1}\n')
        assert folder.cut_json_lines("m.jsonl", 9) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    with small_disk_in(tmp_path, "128k") as disk:
        yield disk


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (disk / "filler").write_bytes(b"x" * 200_000)


def test_a_full_disk_takes_the_line_back(small_disk: Path) -> None:
    with RunFolder(config_at(small_disk / "run")) as folder:
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


def test_a_log_that_cannot_be_written_does_not_end_the_run(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with RunFolder(config_at(small_disk / "run")) as folder:
        fill(small_disk)
        for _ in range(3):
            logger.info("x" * 9000)
    assert capfd.readouterr().err == f"warning: {folder.path}/train.log cannot be written any more\n"


# TensorBoard's own thread fails as well, in its own way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_events_that_cannot_be_written_are_one_line(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = set(threading.enumerate())
    with RunFolder(config_at(small_disk / "run")) as folder:
        (folder.path / "metrics.jsonl").symlink_to(tmp_path / "elsewhere")
        with RunLog(folder, 900) as log:
            log.start(0)
            fill(small_disk)

            def go_on() -> None:
                for epoch in range(900):
                    log.epoch({"epoch": epoch, "test_top1": 1.0})

            with pytest.raises(RunError, match=r"cannot write .*tensorboard: no space left on the device"):
                go_on()
    assert caplog.messages[-1] == "TensorBoard's last events are lost: No space left on device"
    for thread in set(threading.enumerate()) - others:
        thread.join(60)  # or its end would be reported in another test


def test_plain_json_is_plain() -> None:
    value = {
        "a": np.float32(0.5),
        "b": (np.int64(3), float("nan")),
        1: np.array([[True], [False]]),
        "n": -np.inf,
        "z": None,
    }
    assert plain_json(value) == {"a": 0.5, "b": [3, None], "1": [[True], [False]], "n": None, "z": None}
    assert json.dumps(plain_json(value))
