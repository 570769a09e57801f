"""What happens to a run on several ranks when something goes wrong: nothing is lost, and the line says what it was."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nobody import as_nobody
from several_ranks import (
    SUPPORT,
    TIME_LIMIT,
    end_node,
    free_port,
    on_ranks,
    run_to_end,
    start_node,
    torchrun,
    wait_for_port,
)
from small_disk import small_disk_in
from small_run import assert_same_run, metrics, run, small_config

from fastcpc.config.load import to_yaml
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.outputs.run_dir import RunDir

UNLUCKY = str(SUPPORT / "unlucky_train.py")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run on two ranks, without any accident."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    on_ranks(2, "rank_runs:train_small", folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    with small_disk_in(tmp_path, "8m") as disk:
        yield disk


def write_config(folder: Path) -> Path:
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(to_yaml(small_config(folder)))
    return file


def start(accidents: list[Any], config: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    arguments = [UNLUCKY, json.dumps(accidents), "--config", str(config)]
    command = torchrun(2, *arguments, options=options or ("--standalone", f"--max-restarts={len(accidents)}"))
    return run_to_end(command, check=False)


def test_run_after_a_killed_rank_and_sigterm_is_bit_identical(undisturbed: Path, tmp_path: Path) -> None:
    """torchrun restarts after a kill, the run resumes from its last whole checkpoint; SIGTERM to torchrun reaches all
    ranks, which stop at the same step and keep it. In the end every bit is as without all this."""
    folder = tmp_path / "run"
    config = write_config(folder)
    done = start([[1, 24, "SIGKILL", "self"], [0, 6, "SIGTERM", "parent"]], config)
    assert done.returncode != 0
    assert "stopped by SIGTERM at epoch" in done.stderr, done.stdout + done.stderr
    log = (folder / "train.log").read_text()
    assert log.count("resumed from") == 1 and log.count("; into ") == 1, log
    assert load(find_checkpoint(folder, "latest"))[1]["position"]["step"] > 0  # it stopped inside an epoch
    done = start([], config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(undisturbed, folder)


def test_run_after_a_lost_node_is_bit_identical(undisturbed: Path, tmp_path: Path) -> None:
    """Two launches. In the third epoch one is gone, torchrun and all; started again, it finds the other waiting, and
    they resume from the last whole checkpoint. One of them speaks, and every bit is as without all this."""
    config, port = write_config(tmp_path / "run"), free_port()

    def node(accidents: list[Any]) -> "subprocess.Popen[str]":
        nodes.append(start_node(port, UNLUCKY, json.dumps(accidents), "--config", str(config)))
        return nodes[-1]

    nodes: list[subprocess.Popen[str]] = []
    try:
        first = node([])
        wait_for_port(port, first)
        lost = node([[-1, 36, "SIGKILL", "node"]])
        told = lost.communicate(timeout=TIME_LIMIT)
        assert lost.returncode == -signal.SIGKILL, told
        assert find_checkpoint(tmp_path / "run", "latest").name == "epoch_0001"
        again = node([])
        outputs = [process.communicate(timeout=TIME_LIMIT) for process in (first, again)]
        assert [first.returncode, again.returncode] == [0, 0], outputs
    finally:
        for process in nodes:
            end_node(process)
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("; into ") == 1 and re.findall(r"resumed from \S*(epoch_\d+)", log) == ["epoch_0001"], log
    assert sum("finished: top-1" in stdout for stdout, _ in outputs) == 1
    assert_same_run(undisturbed, tmp_path / "run")


def test_wrong_config_is_reported_once(tmp_path: Path) -> None:
    """And torchrun shows the line too."""
    config = write_config(tmp_path / "run")
    config.write_text(config.read_text().replace("batch_size: 32", "batch_size: 33"))
    done = start([], config)
    assert done.returncode == 1
    told = re.findall(r"^fastcpc-train: error: (.*)$", done.stderr, re.MULTILINE)
    assert told == [
        "train.batch_size=33: 2 processes cannot share it equally; choose a multiple such as 32, or count it for each "
        "process (parallel.batch_size=per_rank)"
    ]
    assert "InputError: train.batch_size=33" in done.stderr and "exitcode  : 2" in done.stderr


def test_run_folder_in_use_is_an_error_on_every_rank(tmp_path: Path) -> None:
    with RunDir(small_config(tmp_path / "held")):
        on_ranks(2, "rank_runs:held_elsewhere", tmp_path / "held")


def test_silent_rank_is_named(tmp_path: Path) -> None:
    on_ranks(2, "rank_runs:silence", tmp_path)


def test_full_disk_ends_all_ranks_and_the_run_resumes(undisturbed: Path, small_disk: Path, tmp_path: Path) -> None:
    on_ranks(2, "rank_runs:full_disk", small_disk)
    (small_disk / "filler").unlink()
    run_folder = small_disk / "run"
    assert find_checkpoint(run_folder, "latest").name in ("epoch_0000", "epoch_0001")  # where the disk was full at last
    shutil.copytree(run_folder, tmp_path / "moved")
    on_ranks(2, "rank_runs:train_small", tmp_path / "moved")
    assert_same_run(undisturbed, tmp_path / "moved")


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A folder that every user may use; those of pytest are the user's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_read_only_folder_ends_the_run_with_one_line(open_home: Path, tmp_path: Path) -> None:
    home = open_home
    said = as_nobody("nobody_runs:train_until_read_only", home / "run", tmp_path / "before")
    assert re.fullmatch(r"RunError: cannot write .*: Permission denied; fix this and repeat the command.*", said)
    assert find_checkpoint(home / "run", "latest").name in ("epoch_0000", "epoch_0001")
    for folder in (home / "run", home / "run" / "checkpoints"):
        folder.chmod(0o777)
    assert run(small_config(home / "run"))["finished"]


def test_damaged_checkpoint_costs_one_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(small_config(tmp_path / "whole"))
    config = small_config(tmp_path / "run")
    run(config)
    (tmp_path / "run" / "summary.json").unlink()
    last = tmp_path / "run" / "checkpoints" / "epoch_0003" / "state.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with caplog.at_level("INFO", "fastcpc"):
        run(config)
    assert "epoch_0003 is damaged: state.pt does not match its checksum in SHA256SUMS; trying the one before it" in (
        caplog.text
    )
    assert "resumed from" in caplog.text and "epoch_0002" in caplog.text
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


HANGING = """
import subprocess, sys
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(rank.pid, flush=True)
rank.wait()
"""


def test_a_command_over_its_limit_ends_with_its_ranks() -> None:
    """The rank holds the pipes of the command, which has none of its own."""
    with pytest.raises(AssertionError, match=r"killed after 5 seconds\n[0-9]+\n") as failed:
        run_to_end([sys.executable, "-c", HANGING], limit=5)
    rank = str(failed.value).splitlines()[1]
    assert not Path(f"/proc/{rank}").exists() or ") Z " in Path(f"/proc/{rank}/stat").read_text()
