"""Checkpoints of a process that is killed, or whose disk is full, at any moment."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from several_ranks import TIME_LIMIT
from small_disk import small_disk_in

from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.errors import RunError

# A child saves without pause (the same epoch again, the next, best or not); its parent kills it at a random moment.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import latest
torch.set_num_threads(1)
run, rounds = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(3)
report = []

def write(store, epoch):
    networks = [{"w": torch.full((20_000,), float(epoch))} for _ in range(2)]
    store.save(epoch, networks, {"epoch": epoch, "t": torch.full((10_000,), float(epoch))}, best=epoch % 3 == 0)

write(CheckpointStore(run, 5), 0)
epoch = 0
for _ in range(rounds):
    child = os.fork()
    if child == 0:
        store = CheckpointStore(run, 5)
        while True:
            write(store, epoch)
            epoch += 1
            write(store, epoch)
    time.sleep(draw.uniform(0.02, 0.35))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    hidden = sorted(path.name for path in (run / "checkpoints").iterdir() if path.name.startswith("."))
    unopened = latest(run)
    store = CheckpointStore(run, 5)
    newest = store.latest()
    networks, state = load(newest)
    same = all(bool((tensor == state["epoch"]).all()) for tensor in (networks[0]["w"], networks[1]["w"], state["t"]))
    left = [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    pointed = [(store.folder / (store.folder / name).read_text().strip()).is_dir() for name in ("latest", "best")]
    report.append({"hidden": hidden, "unopened": unopened is not None, "name": newest.name, "epoch": state["epoch"],
                   "before": epoch, "same": same, "left": left, "pointed": pointed})
    epoch = state["epoch"]
print(json.dumps(report))
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), "20"],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    assert len(rounds) == 20
    for number, entry in enumerate(rounds):
        wanted = {
            "unopened": True,
            "same": True,
            "left": [],
            "pointed": [True, True],
            "name": f"epoch_{entry['epoch']:04d}",
        }
        assert {key: entry[key] for key in wanted} == wanted, (number, entry)
        assert entry["epoch"] >= entry["before"], (number, entry)
    assert rounds[-1]["epoch"] >= 5
    assert sum(bool(entry["hidden"]) for entry in rounds) >= 5  # kills did fall into the middle of a save


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
def test_a_file_size_limit_leaves_the_one_before_intact(tmp_path: Path, again: bool) -> None:
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


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk: Path) -> None:
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
