"""The calls of the benches at two commits, in turns: which of them became slower or faster.

    git worktree add --detach DIR COMMIT
    python bench/alternatives/two_commits.py --before DIR [--root IMAGES]

Each commit has a process with the benches and the package of its folder: "before" those of DIR, "now" those of this
one. Both do the same call, one after the other. The order changes with each turn. Times are CPU times of the process
with its threads. The check fails where a call became slower beyond the spread. Compilation is not timed. Writes
results/<machine>/two_commits.json.
"""

import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

WORKER = "--calls-of"  # the hidden form of this script: answers with the seconds of the calls whose numbers it reads
OWN = Path(__file__).resolve().parents[2]
FOLDER = Path(sys.argv[2]).resolve() if WORKER in sys.argv else OWN
sys.path[:0] = [str(FOLDER / "bench" / "speed"), str(FOLDER / "bench"), str(FOLDER)]  # kernels: the bench
import harness
import numpy as np
import torch

WIDTH, BATCH, NUM_IMAGES = 16, 32, 64
SHORTEST = 0.05  # seconds; shorter calls are repeated, but the backward pass, which needs its forward pass
Calls = dict[str, Callable[[], Any]]


def calls_of(root: str, stack: ExitStack) -> Calls:
    """What is timed. root: of image files, or empty. stack: keeps what the calls need."""
    import gmm
    import step
    import trainers

    import kernels

    found: Calls = {}
    take(gmm, "mixtures", found)
    gmm.bench(50_000, 100, "cpu", 1, timed_loop=False)
    take(gmm, "mixtures of 1,000,000", found)
    gmm.bench(1_000_000, 1000, "cpu", 1, timed_loop=False)
    take(kernels, "prototype loss", found)
    kernels.loss_row(8192, 100, "float32", "cpu", 1)
    take(kernels, "prototype scores", found)
    kernels.scores_row(50_000, 10, "cpu", 1)
    options = Namespace(width=WIDTH, batch=BATCH, steps=1, repeats=1, precision="fp32", device="cpu")
    take(step, "step", found)
    step.parts_row(options)
    for name, compiled in (("step: all, compiled", "default"), ("step: all", "false")):
        config = step.our_config(options, stack.enter_context(trainers.scratch()), compiled)
        trainer = stack.enter_context(trainers.trainer_of(config, trainers.made_up_cifar(1024, 256)))
        found[name] = step.Stretch(trainer)
    found["scoring"] = lambda: trainer.score(20)
    found["evaluation"] = trainer.measure
    if root:
        found |= image_calls(root, stack)
    return {name: call for name, call in found.items() if not name.endswith(("plain", "sklearn loop"))}


def image_calls(root: str, stack: ExitStack) -> Calls:
    """The loaders of image files."""
    import data

    found: Calls = {}
    paths = sorted(str(path) for path in Path(root).rglob("*.jpg"))[:NUM_IMAGES]
    cache = data.write_cache(paths, Path(stack.enter_context(TemporaryDirectory(prefix="fastcpc-bench-"))))
    for views in data.VIEWS:
        take(data, f"{views} views", found)
        data.bench(views, paths, cache, 1, torch.device("cpu"), 1)
    return {name: call for name, call in found.items() if "DataLoader" not in name and "reader" not in name}


def take(bench: ModuleType, prefix: str, found: Calls) -> None:
    """From now on the bench hands its calls over and does not time them."""

    def keep(calls: Calls, *_: Any, **__: Any) -> dict[str, harness.Timing]:
        for name, call in calls.items():
            full, number = f"{prefix}: {name}", 2
            while full in found:
                full, number = f"{prefix}: {name} {number}", number + 1
            found[full] = call
        return {name: harness.Timing(1.0, 1.0, 1.0, 1) for name in calls}

    vars(bench)["time_in_turns"] = keep


def work(root: str) -> int:
    """Print the names of the calls, then the seconds of each call that is asked for."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    with redirect_stdout(sys.stderr), ExitStack() as stack:
        calls = calls_of(root, stack)
        print("\t".join(calls), file=answers)
        for line in sys.stdin:
            name = line.rstrip("\n")
            begin, number = time.process_time(), 0
            while not number or (time.process_time() - begin < SHORTEST and not name.endswith("backward")):
                calls[name]()
                number += 1
            print((time.process_time() - begin) / number, file=answers)
    return 0


class Side:
    """The process of one commit."""

    def __init__(self, folder: Path, root: str, stack: ExitStack) -> None:
        command = [sys.executable, __file__, WORKER, str(folder), root]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1, env=environment, cwd=folder)
        stack.callback(process.wait)
        assert process.stdin is not None and process.stdout is not None
        stack.callback(process.stdin.close)
        self._asks, self._answers = process.stdin, process.stdout
        self.calls = self._read().split("\t")

    def seconds(self, name: str) -> float:
        """CPU seconds of one call."""
        print(name, file=self._asks, flush=True)
        return float(self._read())

    def _read(self) -> str:
        line = self._answers.readline()
        if not line:
            raise SystemExit("a process ended; its error is above")
        return line.rstrip("\n")


def spread(seconds: list[float]) -> harness.Timing:
    """Median and percentiles."""
    low, median, high = (float(part) for part in np.percentile(seconds, [20, 50, 80]))
    return harness.Timing(median, low, high, len(seconds))


def main() -> int:
    """Print the table and write the JSON."""
    parser = harness.arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="worktree of the earlier commit")
    parser.add_argument("--root", default="", help="folder of image files; without it no loaders of images")
    options = parser.parse_args()
    report = harness.Report("two_commits", harness.this_machine("cpu"), options.results)
    report.extra["before"] = harness.commit_of(options.before)
    spent: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        sides = {
            "before": Side(options.before.resolve(), options.root, stack),
            "now": Side(OWN, options.root, stack),
        }
        names = [name for name in sides["now"].calls if name in sides["before"].calls]
        for turn in range((options.repeats or 7) + 1):
            for name in names:
                for side in sorted(sides, reverse=bool(turn % 2)):
                    seconds = sides[side].seconds(name)
                    if turn:
                        spent.setdefault(name, {}).setdefault(side, []).append(seconds)
    for name in names:
        timings = {side: spread(taken) for side, taken in spent[name].items()}
        slower = harness.Check("now's 20 % / before's 80 %", timings["now"].low / timings["before"].high, 1.0)
        report.add(harness.Row({"call": name}, slower, "now", timings))
    return report.finish()


if __name__ == "__main__":
    sys.exit(work(sys.argv[3]) if WORKER in sys.argv else main())
