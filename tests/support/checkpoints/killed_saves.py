"""Save checkpoints in processes that are killed at each of their writes in turn; print what each kill leaves as JSON.

Usage: killed_saves.py FOLDER. tests/engine/checkpoint/test_crash.py runs it. A write boundary is the moment before each
rename, fsync, mkdir, unlink and rmdir, and the middle of each file's data.
"""

import builtins
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import latest
from fastcpc.engine.checkpoint.store import CheckpointStore

CALLS = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir")
# name: checkpoints before as (epoch, best), then the one in whose save the process is killed
SCENARIOS: dict[str, tuple[list[tuple[int, bool]], tuple[int, bool]]] = {
    "next_epoch": ([(0, True), (1, False)], (2, True)),
    "same_epoch": ([(0, False), (1, True)], (1, True)),
    "turned_back": ([(0, True), (1, False), (2, False)], (1, False)),
}


class HalfWritten:
    """A file whose data reach the disk in two halves with a boundary between them."""

    def __init__(self, file: Any, boundary: Callable[[], None]) -> None:
        self._file = file
        self._boundary = boundary

    def write(self, data: bytes) -> None:
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._boundary()
        self._file.write(data[half:])

    def __enter__(self) -> "HalfWritten":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def kill_at(number: int) -> None:
    """Kill this process at its write boundary of this number (1, 2, ...)."""
    left = number

    def boundary() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in CALLS:
        call = getattr(os, name)

        def counted(*arguments: Any, call: Callable[..., Any] = call, **options: Any) -> Any:
            boundary()
            return call(*arguments, **options)

        setattr(os, name, counted)
    plain_open = builtins.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        plain = plain_open(file, mode, *arguments, **options)
        return HalfWritten(plain, boundary) if mode == "wb" else plain

    builtins.open = opened  # type: ignore[assignment]


def killed(body: Callable[[], object], number: int) -> bool:
    """Run body in a process that is killed at that boundary; False when it ends before."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kill_at(number)
            body()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, "the save failed"
    return False


def save(run: Path, epoch: int, best: bool, version: int) -> None:
    """A checkpoint whose tensors are all equal to its version."""
    value = float(version)
    networks = [{"w": torch.full((2_000,), value)} for _ in range(2)]
    CheckpointStore(run, 0).save(epoch, networks, {"version": version, "t": torch.full((500,), value)}, best=best)


def opened_again(run: Path) -> dict[str, Any]:
    """What the next start finds, before and after the store has cleaned up."""
    folder = run / "checkpoints"
    hidden = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    unopened = latest(run)
    store = CheckpointStore(run, 0)
    newest = store.latest()
    if newest is None:
        return {"hidden": hidden, "name": None}
    networks, state = load(newest)
    tensors = (networks[0]["w"], networks[1]["w"], state["t"])
    return {
        "hidden": hidden,
        "unopened": None if unopened is None else unopened.name.strip(".").removesuffix(".old"),
        "name": newest.name,
        "version": state["version"],
        "whole": all(bool((tensor == state["version"]).all()) for tensor in tensors),
        "left": sorted(path.name for path in folder.iterdir() if path.name.startswith(".")),
        "pointers": {
            name: (folder / (folder / name).read_text().strip()).is_dir()
            for name in ("latest", "best")
            if (folder / name).exists()
        },
    }


def kills(name: str, base: Path) -> Iterable[dict[str, Any]]:
    """One entry for each write boundary of a scenario's save, and of the recovery from each kind of remains."""
    before, (epoch, best) = SCENARIOS[name]
    whole = base / name
    for version, (old_epoch, old_best) in enumerate(before):
        save(whole, old_epoch, old_best, version)
    ended, number, seen = False, 0, set[tuple[str, ...]]()
    while not ended:
        number += 1
        run = base / f"{name}_{number}"
        shutil.copytree(whole, run)
        ended = not killed(lambda run=run: save(run, epoch, best, len(before)), number)  # type: ignore[misc]
        hidden = (run / "checkpoints").glob(".*")
        remains = tuple(sorted(path.name.split("-")[0] for top in hidden for path in (top, *top.glob("*"))))
        recovered, recovery = not remains or remains in seen, 0
        seen.add(remains)
        while not recovered:
            recovery += 1
            again = base / f"{name}_{number}_{recovery}"
            shutil.copytree(run, again)
            recovered = not killed(lambda again=again: CheckpointStore(again, 0), recovery)  # type: ignore[misc]
            yield {"scenario": name, "kill": number, "recovery": recovery, "ended": ended, **opened_again(again)}
            shutil.rmtree(again)
        yield {"scenario": name, "kill": number, "recovery": 0, "ended": ended, **opened_again(run)}
        shutil.rmtree(run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([entry for name in SCENARIOS for entry in kills(name, Path(sys.argv[1]))]))
