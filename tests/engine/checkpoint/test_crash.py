"""Checkpoints of a process that is killed at any write, or whose disk is full."""

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from several_ranks import run_to_end
from small_disk import small_disk_in

from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.errors import RunError

KILLED_SAVES = Path(__file__).parents[2] / "support" / "checkpoints" / "killed_saves.py"


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is left after a kill at every write boundary of a save, and of the recovery that follows it."""
    done = run_to_end([sys.executable, str(KILLED_SAVES), str(tmp_path_factory.mktemp("killed"))])
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


# scenario: the epochs that may be the newest after a kill, and the version of each (those before are 0, 1, ...)
NEWEST = {
    "next_epoch": {"epoch_0001": {1}, "epoch_0002": {2}},
    "same_epoch": {"epoch_0001": {1, 2}},
    "turned_back": {"epoch_0002": {2}, "epoch_0001": {3}},
}


@pytest.mark.parametrize("scenario", NEWEST)
def test_kill_at_every_write_leaves_a_whole_checkpoint(scenario: str, kills: list[dict[str, Any]]) -> None:
    entries = [entry for entry in kills if entry["scenario"] == scenario]
    for entry in entries:
        assert entry["name"] in NEWEST[scenario] and entry["version"] in NEWEST[scenario][entry["name"]], entry
        assert entry["whole"] and entry["unopened"] == entry["name"] and entry["left"] == [], entry
        assert entry["pointers"] == {"latest": True, "best": True}, entry
    versions = [entry["version"] for entry in entries]
    assert versions == sorted(versions) and versions[0] != versions[-1]  # the new one is never lost again
    assert max(entry["kill"] for entry in entries) >= 20  # boundaries of a save


def test_kills_leave_every_kind_of_temporary_file(kills: list[dict[str, Any]]) -> None:
    endings = {name.split(".")[2].split("-")[0] for entry in kills for name in entry["hidden"]}
    assert endings == {"tmp", "old", "gone"}


def networks(num_values: int) -> list[dict[str, torch.Tensor]]:
    return [{"w": torch.zeros(num_values)} for _ in range(2)]


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("again", [False, True])
def test_file_size_limit_keeps_the_earlier_checkpoint(tmp_path: Path, again: bool) -> None:
    store = CheckpointStore(tmp_path, 0)
    store.save(1, networks(1000), {"epoch": 1}, best=True)
    with (
        file_size_limit(100_000),
        pytest.raises(RunError, match=r"cannot write .*: file size limit \(0\.4 MB needed, .* MB free\)"),
    ):
        store.save(1 if again else 2, networks(50_000), {"epoch": 2}, best=True)
    assert sorted(path.name for path in store.folder.iterdir()) == ["best", "epoch_0001", "latest"]
    latest = store.latest()
    assert latest is not None
    assert load(latest)[1] == {"epoch": 1}
    store.save(2, networks(50_000), {"epoch": 2}, best=False)
    latest = store.latest()
    assert latest is not None
    assert load(latest)[1] == {"epoch": 2}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    with small_disk_in(tmp_path, "1m") as disk:
        yield disk


def test_full_disk_gives_one_line_and_keeps_the_checkpoint(small_disk: Path) -> None:
    store = CheckpointStore(small_disk, 0)
    store.save(1, networks(50_000), {"epoch": 1}, best=False)
    (small_disk / "filler").write_bytes(b"x" * 500_000)
    with pytest.raises(
        RunError, match=r"cannot write .*epoch_0002: no space left on the device \(0\.4 MB needed, 0\.\d MB free\)"
    ) as caught:
        store.save(2, networks(50_000), {"epoch": 2}, best=False)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in store.folder.iterdir()) == ["epoch_0001", "latest"]
    latest = store.latest()
    assert latest is not None
    assert load(latest)[1] == {"epoch": 1}
    (small_disk / "filler").unlink()
    store.save(2, networks(50_000), {"epoch": 2}, best=False)
    latest = store.latest()
    assert latest is not None
    assert latest.name == "epoch_0002"
