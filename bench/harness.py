"""What every bench shares: machine, timing in turns, table, JSON, and no speed for a wrong result.

The compared calls are timed in turns (a, b, c, a, b, c, ...) in one process. A busy moment of the machine then affects
all of them. On a CPU, only the ratios of a row are meaningful. On a GPU, events on the stream time a call
(gpu_timing.py). The JSON is written after each row, so that a bench that is ended early leaves its rows.
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu_timing
import numpy as np
import torch

RESULTS = Path(__file__).resolve().parent / "results"
COMMIT = "FASTCPC_COMMIT"  # names the commit where the code is a copy without .git
PACKAGES = ("torch", "triton", "numpy", "scikit-learn", "cupy-cuda13x")


@dataclass(frozen=True)
class Machine:
    """Where a bench ran: enough to decide whether two results are comparable."""

    name: str
    device: str
    cores: int
    threads: int
    driver: str
    packages: dict[str, str]
    commit: str
    day: str

    def line(self) -> str:
        """One line, above every table."""
        parts = [self.name, *([f"driver {self.driver}"] if self.driver else [])]
        parts.append(f"{self.cores} cores, {self.threads} threads")
        parts += [f"{name} {number}" for name, number in self.packages.items()]
        return " | ".join([*parts, f"commit {self.commit}", self.day])

    def slug(self) -> str:
        """The machine's name as a folder's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def this_machine(device: str) -> Machine:
    """The machine, named after its GPU if ``device`` is "cuda", else after its processor."""
    name, driver = _processor(), ""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = _output(query).splitlines()[0]
    return Machine(
        name,
        device,
        os.cpu_count() or 1,
        torch.get_num_threads(),
        driver,
        _versions(),
        _commit(),
        date.today().isoformat(),
    )


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median, 20th and 80th percentile of n.

    On a GPU also host, the median seconds that the host needs to queue a call, and queued, whether the device began
    only after the whole call was queued. Otherwise gaps between launches are part of the time.
    """

    median: float
    low: float
    high: float
    n: int
    host: float | None = None
    queued: bool | None = None

    def record(self) -> dict[str, Any]:
        """The timing in the JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Check:
    """The condition for a row to show a speed: ``value`` is at most ``limit``."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """False for a NaN as well."""
        return self.value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of a table. ``subject`` names the call that the others are compared with."""

    labels: dict[str, Any]
    check: Check
    subject: str
    timings: Mapping[str, Timing]
    floor: float | None = None  # minimum seconds for any implementation on this machine
    notes: dict[str, Any] = field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """Time of each other call divided by the time of the subject."""
        own = self.timings[self.subject].median
        return {name: timing.median / own for name, timing in self.timings.items() if name != self.subject}

    def record(self) -> dict[str, Any]:
        """The row in the JSON, without any speed if the check failed."""
        record: dict[str, Any] = {"labels": self.labels, "check": asdict(self.check) | {"passed": self.check.passed}}
        if self.check.passed:
            record["seconds"] = {name: timing.record() for name, timing in self.timings.items()}
            record["subject"], record["ratios"] = self.subject, self.ratios()
            if self.floor is not None:
                record["floor_seconds"] = self.floor
                record["floor_fraction"] = self.floor / self.timings[self.subject].median
        return record | ({"notes": self.notes} if self.notes else {})


def time_in_turns(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: str,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every call ``repeats`` times, in turns, after ``warmup`` untimed turns. clock: in seconds, of a CPU."""
    for _ in range(warmup):
        for call in calls.values():
            call()
    if device == "cuda":
        return _time_on_gpu(calls, repeats)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            call()
            seconds[name].append(clock() - start)
    return {name: _timing(spent) for name, spent in seconds.items()}


def cpu_seconds() -> float:
    """CPU time of this process and of its processes that have ended: on a busy machine it is the fairer clock."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def _time_on_gpu(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    timers = {name: gpu_timing.QueuedTimer(call) for name, call in calls.items()}
    while any(len(timer.device) < repeats for timer in timers.values()):
        for timer in timers.values():
            timer.measure()
    return {
        name: replace(_timing(timer.device), host=float(np.median(timer.host)), queued=timer.queued)
        for name, timer in timers.items()
    }


def _timing(seconds: Sequence[float]) -> Timing:
    low, median, high = (float(part) for part in np.percentile(seconds, [20, 50, 80]))
    return Timing(median, low, high, len(seconds))


class Report:
    """A table on the terminal and the JSON file results/<machine>/<name>.json, both grow row by row.

    folder: of the results.
    """

    def __init__(self, name: str, machine: Machine, folder: Path = RESULTS) -> None:
        self.name, self.machine, self.rows = name, machine, list[Row]()
        self.path = folder / machine.slug() / f"{name}.json"
        self.header: list[str] = []
        self.extra: dict[str, Any] = {}  # what the JSON holds besides the rows
        print(machine.line())
        print("Median ms a call, 20th-80th percentile in (), n calls in turns; FAIL: the check failed, so no speed.")
        if machine.device == "cpu":
            print("Times of a CPU hold for this run only: compare within a row.")

    def add(self, row: Row) -> None:
        """Print the row: its speed, or FAIL. Prints a header first if the columns change."""
        cells = {name: str(value) for name, value in row.labels.items()} | self._speed(row)
        cells[row.check.name] = f"{row.check.value:.2g} (limit {row.check.limit:.2g})"
        widths = {name: max(len(name), len(cell), 24 if name in row.timings else 6) for name, cell in cells.items()}
        if list(cells) != self.header and row.check.passed:
            self.header = list(cells)
            print("  ".join(name.ljust(widths[name]) for name in cells))
        print("  ".join(cell.ljust(widths[name]) for name, cell in cells.items()), flush=True)
        self.rows.append(row)
        self._write()

    def _speed(self, row: Row) -> dict[str, str]:
        if not row.check.passed:
            return {"speed": "FAIL"}
        cells = {name: _milliseconds(timing) for name, timing in row.timings.items()}
        cells |= {f"vs {name}": f"{ratio:.2f}x" for name, ratio in row.ratios().items()}
        if row.floor is not None:
            cells["floor ms"] = f"{row.floor * 1e3:.3g}"
            cells["of floor"] = f"{row.floor / row.timings[row.subject].median:.0%}"
        return cells | {name: str(value) for name, value in row.notes.items()}

    def finish(self) -> int:
        """Write the JSON with ``extra`` and return the exit code: 1 if a row failed."""
        self._write()
        print(f"wrote {self.path}")
        return 0 if all(row.check.passed for row in self.rows) else 1

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"bench": self.name, "machine": asdict(self.machine), "rows": [row.record() for row in self.rows]}
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(content | self.extra, indent=1) + "\n", encoding="ascii")
        partial.replace(self.path)


def arguments(description: str) -> argparse.ArgumentParser:
    """The options of every bench."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=0, help="timed turns a row (0: the bench's own choice)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    return parser


def _milliseconds(timing: Timing) -> str:
    return f"{timing.median * 1e3:.4g} ({timing.low * 1e3:.4g}-{timing.high * 1e3:.4g}, n={timing.n})"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    return os.environ[COMMIT] if COMMIT in os.environ else commit_of(Path(__file__).resolve().parent.parent)


def commit_of(root: Path) -> str:
    """The commit of a checkout; + stands for changes that are not committed."""
    changed = "+" if _output(["git", "-C", str(root), "status", "--porcelain", "-uno"]) else ""
    return (_output(["git", "-C", str(root), "rev-parse", "--short", "HEAD"]) or "unknown") + changed


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
