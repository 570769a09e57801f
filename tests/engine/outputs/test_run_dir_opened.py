"""Who may open a run's folder: what is refused in one line, left untouched, and what is no hindrance."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nobody import as_nobody

from fastcpc.config.load import load_config
from fastcpc.config.schema import Config, RunConfig, TrainConfig
from fastcpc.engine.checkpoint.config_diff import changed_settings
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.errors import InputError


def config_at(path: Path, **run: Any) -> Config:
    return Config(run=RunConfig(dir=str(path), **run))


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as caught:
        RunDir(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_same_config_opens_the_folder_again(tmp_path: Path) -> None:
    RunDir(config_at(tmp_path / "run")).close()
    again = replace(config_at(tmp_path / "run", keep_every=5, name="other"), device="cpu")
    RunDir(again).close()
    assert load_config([tmp_path / "run" / "config.yaml"], []) == again


def test_changed_settings_are_rejected_by_name(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    RunDir(config).close()
    CheckpointStore(tmp_path / "run", 0).save(0, [], {}, best=True)
    other = replace(config, train=TrainConfig(lr=0.5, epochs=7), precision="fp32", run=replace(config.run, seed=9))
    message = refusal(other)
    for part in ("run.seed (1 there, 9 now)", "train.epochs (450 there, 7 now)", "train.lr (0.02 there, 0.5 now)"):
        assert part in message
    assert "precision ('auto' there, 'fp32' now); give another run.dir" in message
    assert load_config([tmp_path / "run" / "config.yaml"], []) == config
    assert len(changed_settings(config, other)) == 4
    assert changed_settings(config, replace(config, compile="default")) == []


def test_settings_may_change_before_the_first_checkpoint(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    RunDir(config).close()
    other = replace(config, train=TrainConfig(lr=0.5))
    RunDir(other).close()
    assert load_config([tmp_path / "run" / "config.yaml"], []) == other


def test_paths_may_change_and_are_saved(tmp_path: Path) -> None:
    config = config_at(tmp_path / "run")
    RunDir(config).close()
    CheckpointStore(tmp_path / "run", 0).save(0, [], {}, best=True)
    moved = replace(config, data=replace(config.data, root="/elsewhere"), run=replace(config.run, resume="/a/path"))
    RunDir(moved).close()
    saved = load_config([tmp_path / "run" / "config.yaml"], [])
    assert saved.data.root == "/elsewhere"
    assert saved.run.resume == "auto"  # the saved config resumes from the run's own checkpoints


def test_run_resumes_compiled(tmp_path: Path) -> None:
    """Runs of a time when compile=false was the default resume with compile=auto."""
    config = replace(config_at(tmp_path / "run"), compile="false")
    RunDir(config).close()
    CheckpointStore(tmp_path / "run", 0).save(0, [], {}, best=True)
    RunDir(replace(config, compile="auto")).close()
    assert load_config([tmp_path / "run" / "config.yaml"], []).compile == "auto"


def test_resume_never_needs_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = config_at(tmp_path / "run", resume="never")
    RunDir(config).close()
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
def test_folder_that_is_not_a_run_is_rejected_and_unchanged(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "p" / "run"
    path.parent.mkdir()
    make(path)
    before = {item: item.read_bytes() for item in path.rglob("*")} if path.is_dir() else {path: path.read_bytes()}
    assert re.search(message, refusal(config_at(path)))
    after = {item: item.read_bytes() for item in path.rglob("*") if item.name != ".lock"} if path.is_dir() else before
    assert after == before
    if "files that are not" in message:
        assert not (path / ".lock").exists()


def test_parent_that_is_a_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("x")
    assert re.search(r"run\.dir: .*/p/run cannot be used: Not a directory", refusal(config_at(tmp_path / "p" / "run")))


def test_name_that_is_too_long_is_rejected(tmp_path: Path) -> None:
    assert "cannot be used: File name too long" in refusal(config_at(tmp_path / ("x" * 300)))


def test_folder_without_permission_is_rejected(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    (tmp_path / "run").mkdir(mode=0o555)
    said = as_nobody("nobody_runs:open_folders", tmp_path / "run", tmp_path / "run" / "new").splitlines()
    assert len(said) == 2
    for line in said:
        assert re.search(r"run\.dir: .* cannot be used: Permission denied; give another run\.dir", line)


HOLDER = """
import sys, time
from pathlib import Path
from fastcpc.config.schema import Config, RunConfig
from fastcpc.engine.outputs.run_dir import RunDir
with RunDir(Config(run=RunConfig(dir=sys.argv[1]))):
    print("open", flush=True)
    time.sleep(60)
"""


def test_folder_in_use_is_rejected(tmp_path: Path) -> None:
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
    RunDir(config).close()  # a killed holder holds nothing


def test_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / "run"
    path.mkdir()
    (path / ".lock").write_text(f"{dead.pid} on here\n")
    (path / f".config.yaml.tmp-{dead.pid}").write_text("run:")
    (path / f".eval_test_latest.json.tmp-{os.getppid()}").write_text("{")
    RunDir(config_at(path)).close()
    assert not (path / f".config.yaml.tmp-{dead.pid}").exists()
    assert (path / f".eval_test_latest.json.tmp-{os.getppid()}").exists()  # its writer lives
