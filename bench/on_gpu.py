"""Every check for a new GPU, one after another: the tests marked gpu, the sanitizer, the benches.

Each step has a time limit and its own log. A failed step does not end the others. The same call again continues where
time ran out: steps that passed are not run again. If the GPU's machine keeps no files, copy the folder there and back.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from harness import this_machine

ROOT = Path(__file__).resolve().parents[1]
SUMMARY = "on_gpu.json"
PASSED, FAILED, TIME_OVER = "passed", "failed", "time over"
WORTH_STARTING = 20.0  # seconds


@dataclass(frozen=True)
class Step:
    """A command of Python, or of another program that must be installed."""

    name: str
    command: tuple[str, ...]
    minutes: float


@dataclass(frozen=True)
class Outcome:
    """The result of a step. last: the last line that it printed."""

    name: str
    end: str
    seconds: float
    last: str


def steps(results: Path, images: Path | None) -> list[Step]:
    """The steps in order of importance: correctness before speed."""
    python, bench = sys.executable, str(ROOT / "bench")
    test = (python, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider")
    to = ("--results", str(results))
    found = [
        Step("tests of kernels", (*test, "tests/kernels"), 5),
        Step("tests of loaders", (*test, "tests/data"), 3),
        Step("tests of runs", (*test, "tests/engine"), 6),
        Step("kernels", (python, f"{bench}/speed/kernels.py", *to), 5),
        Step("gmm", (python, f"{bench}/speed/gmm.py", "--large", *to), 5),
        Step("step", (python, f"{bench}/speed/step.py", *to), 5),
        Step("epoch", (python, f"{bench}/speed/epoch.py", "--compile", "default", *to), 5),
    ]
    if images is not None:
        workers = ("--workers", "16", "--images", "4096")
        found.append(Step("data", (python, f"{bench}/speed/data.py", "--root", str(images), *workers, *to), 6))
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer:
        some = (*test, "tests/kernels", "-x")
        found += [
            Step(tool, (sanitizer, "--tool", tool, "--error-exitcode", "9", *some), 8)
            for tool in ("memcheck", "racecheck")
        ]
    return found


def run_step(step: Step, log: Path, seconds: float) -> Outcome:
    """Run a step for at most ``seconds``; all that it prints goes to the log."""
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(step.command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(seconds)
            end = f"{FAILED} (exit status {status})" if status else PASSED
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # with all processes that it started
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            end = TIME_OVER
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Outcome(step.name, end, round(time.monotonic() - start, 1), lines[-1] if lines else "")


def run_all(todo: Sequence[Step], out: Path, minutes: float) -> list[Outcome]:
    """Run the steps that have not passed yet until time runs out. Writes the summary after each step."""
    deadline = time.monotonic() + 60 * minutes
    known = {outcome.name: outcome for outcome in read_summary(out)}
    for step in todo:
        if step.name in known and known[step.name].end == PASSED:
            continue
        left = min(60 * step.minutes, deadline - time.monotonic())
        if left < WORTH_STARTING:
            break
        outcome = run_step(step, out / f"{step.name.replace(' ', '_')}.log", left)
        known[step.name] = outcome
        write_summary(out, [known[name] for name in known])
        print(f"{outcome.name:20} {outcome.end:24} {outcome.seconds:7.1f} s  {outcome.last[:100]}", flush=True)
    return [known.get(step.name, Outcome(step.name, "not started", 0.0, "")) for step in todo]


def read_summary(out: Path) -> list[Outcome]:
    """The outcomes of earlier calls; an empty list for a new folder."""
    path = out / SUMMARY
    return [Outcome(**line) for line in json.loads(path.read_text())["steps"]] if path.exists() else []


def write_summary(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the machine and the outcome of each step."""
    machine = asdict(this_machine("cuda" if torch.cuda.is_available() else "cpu"))
    (out / SUMMARY).write_text(json.dumps({"machine": machine, "steps": [asdict(o) for o in outcomes]}, indent=1))


def main() -> int:
    """Print a line per step; the exit code is 1 if not all have passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of logs, results and on_gpu.json")
    parser.add_argument("--minutes", type=float, default=60.0, help="of this call")
    parser.add_argument("--images", type=Path, help="folder of JPEG files, for the loaders' bench")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the steps")
    parser.add_argument("--list", action="store_true", help="print the steps' commands and do nothing")
    options = parser.parse_args()
    out = options.out.expanduser().resolve()
    todo = steps(out / "results", None if options.images is None else options.images.expanduser().resolve())
    unknown = set(options.only or ()) - {step.name for step in todo}
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: the steps here are {', '.join(step.name for step in todo)}")
    todo = [step for step in todo if not options.only or step.name in options.only]
    if options.list:
        for step in todo:
            print(f"{step.name} ({step.minutes:g} min): {' '.join(step.command)}")
        return 0
    if not torch.cuda.is_available():
        parser.error("torch finds no usable GPU here; --list prints what would be run")
    out.mkdir(parents=True, exist_ok=True)
    outcomes = run_all(todo, out, options.minutes)
    missing = [outcome.name for outcome in outcomes if outcome.end != PASSED]
    print(f"not passed: {', '.join(missing)}" if missing else "all passed")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
