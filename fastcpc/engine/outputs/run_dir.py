"""A run's folder: who may write there, and the files that hold for the whole run."""

import errno
import fcntl
import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fastcpc import distributed
from fastcpc.atomic_io import replace_file, write_failure
from fastcpc.config.load import load_config, run_folder, to_yaml
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.config_diff import changed_settings
from fastcpc.engine.checkpoint.resume import candidates
from fastcpc.engine.outputs.environment import describe_environment
from fastcpc.errors import InputError, RunError

logger = logging.getLogger("fastcpc")

_LOCK = ".lock"
RESTART_SECONDS = 30.0  # that processes which torchrun restarts give those before them, on another machine, to be gone
_OWN_TRACES = re.compile(r"\.lock|\.[\w.]+\.tmp-(\d+)")


class RunDir:
    """The folder of one run, held by one process until ``close``; also a context manager.

    Opening creates the folder (with its parents), takes the lock, writes config.yaml and environment.json, and
    appends to train.log what the logger "fastcpc" says. InputError in one line where the path is no folder
    or cannot be written, or where it has foreign files. The same for a run with other settings, any run with
    run.resume=never, and a run that another process holds.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = run_folder(config)
        self._config_before: bytes | None = None
        _check_before_writing(self.path, config)
        self._lock = _take_lock(self.path)
        try:
            _check_before_writing(self.path, config)  # again: another process may have started here in between
            _clear_traces(self.path)
            # run.resume belongs to this start, not to the run: the saved config resumes from the run's own checkpoints
            text = to_yaml(replace(config, run=replace(config.run, resume="auto"))).encode()
            if (self.path / "config.yaml").exists():
                self._config_before = (self.path / "config.yaml").read_bytes()
            if self._config_before != text:
                replace_file(self.path / "config.yaml", text)
            if self.finished_summary() is None:
                self.write_json("environment.json", describe_environment())
            self._open_log("train.log")
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and error is not None:
            shown = None if isinstance(error, (InputError, RunError)) else (kind, error, trace)
            self._log.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, f"ended: {error}", (), shown))
        if isinstance(error, InputError) and self._config_before is not None:
            # a refused start does not change the run: a wrong data.root would mislead the commands that read it
            replace_file(self.path / "config.yaml", self._config_before)
        self.close()

    def close(self) -> None:
        """Give the folder back: train.log is closed, the lock released."""
        if self._lock >= 0:
            self._close_log()
            os.close(self._lock)
            self._lock = -1

    def _open_log(self, name: str) -> None:
        self._log = _LogFile(self.path / name, encoding="utf-8")
        logger.addHandler(self._log)
        self._level = logger.level
        logger.setLevel(logging.INFO)

    def _close_log(self) -> None:
        logger.removeHandler(self._log)
        logger.setLevel(self._level)
        self._log.close()

    def mark_unfinished(self) -> None:
        """The run is taken back to an earlier checkpoint: what its summary says no longer holds."""
        (self.path / "summary.json").unlink(missing_ok=True)

    def finished_summary(self) -> dict[str, Any] | None:
        """What summary.json says of a complete run; None when there is none, or it does not say that it is complete."""
        try:
            summary = json.loads((self.path / "summary.json").read_bytes())
        except (OSError, ValueError):
            return None
        return summary if isinstance(summary, dict) and summary.get("finished") is True else None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """``write_json`` of a file of the folder."""
        write_json(self.path / name, content)

    def append_json_line(self, name: str, content: Mapping[str, Any]) -> None:
        """Append an object to a .jsonl file; RunError when it cannot be written whole, and then no part of it stays."""
        path = self.path / name
        data = (json.dumps(plain_json(content)) + "\n").encode()
        try:
            with open(path, "ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                try:
                    if file.write(data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
        except OSError as error:
            raise write_failure(error, path, len(data)) from error

    def truncate_json_lines(self, name: str, epoch: int) -> int:
        """Keep the lines of a .jsonl file whose "epoch" is below the given one; returns how many are kept.

        A line that a kill left half-written is cut too, and so is everything after it.
        """
        path = self.path / name
        if not path.exists():
            return 0
        kept = []
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                whole = line.endswith(b"\n") and json.loads(line)["epoch"] < epoch
            except (ValueError, KeyError, TypeError):
                break
            if not whole:
                break
            kept.append(line)
        replace_file(path, b"".join(kept))
        return len(kept)


class FollowerRunDir(RunDir):
    """The run's folder as ranks beyond the first see it: nothing of theirs but a log, train.rankN.log.

    It need not be the folder that rank 0 writes: without a common disk, each machine has its own.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = run_folder(config)
        self._config_before = None
        self._lock = -1
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error) from error
        self._open_log(f"train.rank{distributed.rank()}.log")

    def close(self) -> None:
        """Close the log."""
        self._close_log()


def open_run_dir(config: Config) -> RunDir:
    """The run's folder on every rank. Rank 0 holds the lock and writes; if it cannot, every rank raises its error."""
    first = distributed.on_rank0(lambda: RunDir(config))
    return distributed.raise_on_all_ranks(lambda: first if first is not None else FollowerRunDir(config))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step; NaN and infinities become null."""
    replace_file(path, (json.dumps(plain_json(content), indent=2) + "\n").encode())


def plain_json(value: Any) -> Any:
    """The value with NumPy's numbers and arrays as Python's, tuples as lists, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return plain_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _check_before_writing(path: Path, config: Config) -> None:
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"run.dir: {path} is a file, not a folder; give another run.dir")
        there = sorted(item.name for item in path.iterdir()) if path.exists() else []
    except OSError as error:
        raise _unusable(path, error) from error
    there = [name for name in there if not _OWN_TRACES.fullmatch(name)]
    if not there:
        return
    if "config.yaml" not in there:
        names = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        raise InputError(f"run.dir: {path} holds files that are not a run's ({names}); give an empty or new folder")
    if config.run.resume == "never":
        raise InputError(
            f"run.resume=never, but {path} already holds a run; give another run.dir or run.name, delete the folder, "
            "or resume with run.resume=auto"
        )
    try:
        old = load_config([path / "config.yaml"], [])
    except InputError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"run.dir: {path / 'config.yaml'} is not a config of this program ({reason}); give another run.dir"
        ) from error
    changed = changed_settings(old, config)
    if changed and candidates(path):  # a start that failed before its first checkpoint binds nobody
        raise InputError(
            f"run.dir: {path} holds a run with other settings: {', '.join(changed)}; give another run.dir or run.name, "
            "or restore its settings"
        )


def _take_lock(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _lock_when_free(handle, RESTART_SECONDS if distributed.restarts() else 0.0)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise InputError(
            f"run.dir: {path} is in use by another process (pid {holder}); wait for it, or give another run.dir"
        ) from error
    except OSError as error:
        os.close(handle)
        raise _unusable(path, error) from error
    return handle


def _lock_when_free(handle: int, seconds: float) -> None:
    """Take the lock; BlockingIOError where another process still holds it after this many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def _clear_traces(path: Path) -> None:
    # What a killed process left; fastcpc-eval writes here without the lock, so one that lives keeps its file.
    for item in path.iterdir():
        match = _OWN_TRACES.fullmatch(item.name)
        if match is not None and match[1] is not None and not Path("/proc", match[1]).exists():
            item.unlink(missing_ok=True)


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(f"run.dir: {path} cannot be used: {error.strerror or error}; give another run.dir")


class _LogFile(logging.FileHandler):
    """train.log. When it cannot be written (a full disk), the run continues without it, and stderr says so once."""

    def __init__(self, path: Path, encoding: str) -> None:
        try:
            super().__init__(path, encoding=encoding)
        except OSError as error:
            raise _unusable(path.parent, error) from error
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging calls it by this name)
        if not self._failed:
            self._failed = True
            os.write(2, f"warning: {self.baseFilename} cannot be written any more\n".encode())

    def close(self) -> None:
        """Close the file; lines that still cannot be written must not hide how the run ended."""
        try:
            super().close()
        except OSError:
            self.handleError(logging.makeLogRecord({}))
