"""The first runs on a new GPU: ``first`` and ``second`` (13 minutes together), ``rest`` (as many calls as needed).

gpu_parts.py lists the parts. Each part has its own time limit and log. A failed part does not stop the others. Each
bench writes its JSON row by row. The summary on_gpu.json and, with --archive, one file with everything are replaced
after each part, so that a command that is killed leaves what it had. The same call again skips the parts that passed.
``--rehearse`` runs the same commands with small sizes on a CPU, where tests marked gpu are collected and skipped.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from gpu_parts import EPOCHS, ROOT, Part, Setting, environment, first, rest, second
from harness import this_machine

SUMMARY = "on_gpu.json"
PASSED, FAILED, TIME_OVER = "passed", "failed", "time over"
WORTH_STARTING = 15.0  # seconds
MINUTES = {"first": 8.3, "second": 4.4, "rest": 60.0}
REHEARSAL = 4.0  # times the limits of a GPU
BIGGEST = 12 * 2**20  # bytes of a file in the archive
LOG_LINES = 15  # printed of a part that failed


@dataclass(frozen=True)
class Outcome:
    """The result of a part. last: the last line that it printed."""

    name: str
    end: str
    seconds: float
    last: str


class Running:
    """A part that runs: all that it prints goes to its log. ``seconds``: its limit."""

    def __init__(self, part: Part, out: Path, seconds: float, variables: dict[str, str]) -> None:
        self.part, self.log = part, out / f"{part.name.replace(' ', '_')}.log"
        self.start = time.monotonic()
        self.deadline = self.start + seconds
        self._file = self.log.open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            part.command, cwd=ROOT, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | variables | dict(part.environment),
        )  # fmt: skip

    def outcome(self) -> Outcome | None:
        """The part's end, also by its limit; None while it runs."""
        status = self.process.poll()
        if status is None and time.monotonic() < self.deadline:
            return None
        if status is None:
            self.kill()
        self._file.close()
        end = TIME_OVER if status is None else f"{FAILED} (exit status {status})" if status else PASSED
        lines = self.lines()
        return Outcome(self.part.name, end, round(time.monotonic() - self.start, 1), lines[-1] if lines else "")

    def kill(self) -> None:
        """End the process with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def lines(self) -> list[str]:
        """The lines of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()


class Runner:
    """Runs parts into the folder ``out`` and keeps the summary of this and of earlier calls.

    minutes: of this call. variables: for every part. slack: a factor of the parts' limits.
    """

    def __init__(
        self, out: Path, minutes: float, variables: dict[str, str], archive: Path | None = None, slack: float = 1.0
    ) -> None:
        self.out, self.variables, self.archive, self.slack = out, variables, archive, slack
        self.deadline = time.monotonic() + 60 * minutes
        self.known = {outcome.name: outcome for outcome in read_summary(out)}

    def run(self, parts: Sequence[Part]) -> list[Outcome]:
        """Run the parts that have not passed, those beside each other together; returns the outcomes of all."""
        todo = [part for part in parts if part.name not in self.known or self.known[part.name].end != PASSED]
        while todo:
            group = [todo.pop(0)]
            while group[0].beside and todo and todo[0].beside:
                group.append(todo.pop(0))
            self._run_together(group, later=60 * self.slack * sum(part.reserved for part in todo))
        return [self.known.get(part.name, Outcome(part.name, "not started", 0.0, "")) for part in parts]

    def _run_together(self, group: Sequence[Part], later: float) -> None:
        left = self.deadline - later - time.monotonic()
        if left < WORTH_STARTING:
            left = min(60 * self.slack * max(part.reserved for part in group), self.deadline - time.monotonic())
        if left < WORTH_STARTING:
            return
        running = [Running(part, self.out, min(60 * self.slack * part.minutes, left), self.variables) for part in group]
        try:
            while running:
                ended = [(one, outcome) for one in running if (outcome := one.outcome())]
                for one, outcome in ended:
                    running.remove(one)
                    self._note(one, outcome)
                if not ended:
                    time.sleep(0.05)
        finally:
            for one in running:
                one.kill()

    def _note(self, running: Running, outcome: Outcome) -> None:
        self.known[outcome.name] = outcome
        write_summary(self.out, list(self.known.values()))
        if self.archive is not None:
            pack(self.out, self.archive)
        print(f"{outcome.name:20} {outcome.end:24} {outcome.seconds:7.1f} s  {outcome.last[:100]}", flush=True)
        if outcome.end != PASSED:
            print("\n".join(f"    {line[:160]}" for line in running.lines()[-LOG_LINES:]), flush=True)


def read_summary(out: Path) -> list[Outcome]:
    """The outcomes of earlier calls; an empty list for a new folder."""
    path = out / SUMMARY
    return [Outcome(**line) for line in json.loads(path.read_text())["parts"]] if path.exists() else []


def write_summary(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the machine and the outcome of each part."""
    machine = asdict(this_machine("cuda" if torch.cuda.is_available() else "cpu"))
    (out / SUMMARY).write_text(json.dumps({"machine": machine, "parts": [asdict(o) for o in outcomes]}, indent=1))


def pack(out: Path, archive: Path) -> None:
    """Replace the archive: logs, results and the summary, without larger files such as a run's state."""
    partial = archive.with_name(archive.name + ".partial")
    with tarfile.open(partial, "w:gz") as packed:
        for path in sorted(out.rglob("*")):
            kept = path.is_file() and path not in (partial, archive) and path.stat().st_size <= BIGGEST
            if kept and path.suffix in (".json", ".log", ".gz"):
                packed.add(path, path.relative_to(out))
    partial.replace(archive)


def parts_of(command: str, setting: Setting, out: Path, *, anyway: bool = False) -> list[Part]:
    """The parts of a command. ``second`` is a profile without data, or if a part of ``first`` has not passed.

    anyway: ``second`` measures accuracy also if a part has not passed.
    """
    if command == "first":
        return first(setting)
    if command == "rest":
        return rest(setting)
    ends = {outcome.name: outcome.end for outcome in read_summary(out)}
    not_passed = [part.name for part in first(setting) if ends.get(part.name, PASSED) != PASSED and not anyway]
    reason = f"{', '.join(not_passed)} did not pass" if not_passed else "" if setting.data else "no --data"
    if reason:
        print(f"{reason}: a profile instead of accuracy")
    return second(setting, profile=bool(reason))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per part; the exit code is 1 if not all have passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=tuple(MINUTES))
    parser.add_argument("--out", type=Path, required=True, help="folder of logs, results and on_gpu.json")
    parser.add_argument("--archive", type=Path, help="one .tar.gz of that folder, replaced after each part")
    parser.add_argument("--minutes", type=float, help=f"of this call; default: {MINUTES}")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10, for second")
    parser.add_argument("--anyway", action="store_true", help="accuracy also if a part of first did not pass")
    parser.add_argument("--state", type=Path, help="folder of the accuracy run's state; default: OUT/state")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the accuracy run")
    parser.add_argument("--images", type=Path, help="folder of JPEG files, for rest")
    parser.add_argument("--commit", default="", help="of the code, where no .git beside it tells")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the parts")
    parser.add_argument("--list", action="store_true", help="print the parts' commands and do nothing")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on a CPU")
    options = parser.parse_args(argv)
    out = options.out.expanduser().resolve()
    state, data, images = (
        None if path is None else path.expanduser().resolve()
        for path in (options.state or out / "state", options.data, options.images)
    )
    slack = REHEARSAL if options.rehearse else 1.0
    minutes = slack * MINUTES[options.command] if options.minutes is None else options.minutes
    setting = Setting(out, state or out / "state", data, images, options.epochs, minutes, options.rehearse)
    todo = parts_of(options.command, setting, out, anyway=options.anyway)
    unknown = set(options.only or ()) - {part.name for part in todo}
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: the parts here are {', '.join(part.name for part in todo)}")
    todo = [part for part in todo if not options.only or part.name in options.only]
    if options.list:
        for part in todo:
            print(f"{part.name} ({part.minutes:g} min): {' '.join(part.command)}")
        return 0
    if not torch.cuda.is_available() and not options.rehearse:
        parser.error("torch finds no usable GPU here; --list prints what would be run, --rehearse runs it on a CPU")
    out.mkdir(parents=True, exist_ok=True)
    runner = Runner(out, minutes, environment(options.commit), options.archive, slack)
    missing = [outcome.name for outcome in runner.run(todo) if outcome.end != PASSED]
    print(f"not passed: {', '.join(missing)}" if missing else "all passed")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
