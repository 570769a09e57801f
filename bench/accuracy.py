"""Accuracy of a config over the training time, on a machine that is lent for minutes and keeps nothing.

    python bench/accuracy.py --config configs/cifar10_sym50.yaml data.root=DIR --state STATE --minutes 20 --reach 94 95

Each such call is a stretch. It reads the run from the folder STATE (a few files below 16 MiB: small_state.py). It
continues the run with fastcpc-train, and writes it back when the minutes are over. The written state is that of the
last closed epoch; an unfinished epoch is discarded. The same command again continues the run. STATE/metrics.jsonl grows
by one line per epoch. A stretch costs the run some precision: at its end the weights are rounded to bf16, and momentum
restarts from zero without --momentum. The JSON holds the number of stretches. --epochs N trains N epochs instead of the
config's, with the schedule scaled. The JSON records this too. Writes results/accuracy_NAME.json at the end of each
stretch.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import small_state
from harness import RESULTS
from small_state import METRICS, SmallState

from fastcpc.atomic_io import replace_file
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.config.load import load_config, to_yaml
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.config_diff import flat_settings
from fastcpc.engine.checkpoint.format import metadata
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.engine.step_loop import StopRequest
from fastcpc.errors import InputError, RunError

ROOT = Path(__file__).resolve().parent.parent
LEAST_RATIO = 5  # ratio of all epochs to warm-up epochs, if the schedule is scaled
GRACE = 60.0  # seconds that a trainer has to stop; its state is on disk by then
OBEYED = (
    130,
    143,
    -signal.SIGINT,
    -signal.SIGTERM,
    -signal.SIGKILL,
)  # the last three: while it started, or after GRACE
NEXT_EPOCH = 1.2  # the next epoch may take this many times as long as the last one


@dataclass(frozen=True)
class Plan:
    """What is trained. schedule: in words for the result. scaled: setting -> value for what --epochs changed."""

    config: Config
    schedule: str
    scaled: dict[str, Any]


def scaled_settings(config: Config, epochs: int) -> dict[str, int]:
    """The schedule of a config scaled to this many epochs.

    The drop of the learning rate and the ramp of lambda_u keep their share of the run. The warm-up keeps its epochs,
    because the first cleaning needs trained networks. It takes at most a fifth of the run. cleaner.warmup is already
    a share.
    """
    share = epochs / config.train.epochs
    return {
        "train.epochs": epochs,
        "train.warmup_epochs": min(config.train.warmup_epochs, max(epochs // LEAST_RATIO, 1)),
        "train.lr_drop_epoch": round(config.train.lr_drop_epoch * share),
        "semisup.rampup_epochs": max(round(config.semisup.rampup_epochs * share), 1),
    }


def make_plan(files: Sequence[Path], overrides: Sequence[str], epochs: int) -> Plan:
    """The config of files and overrides, in this many epochs (0: its own); an override beats the scaling."""
    given = {text.partition("=")[0].strip() for text in overrides}
    for key, instead in (
        ("run.dir", "--run"),
        ("run.resume", "--state"),
        *([("train.epochs", "--epochs")] * (epochs > 0)),
    ):
        if key in given:
            raise InputError(f"{key}: {instead} sets it here; leave it out")
    config = load_config(files, overrides)
    if epochs in (0, config.train.epochs):
        return Plan(config, f"{config.train.epochs} epochs, as configured", {})
    scaled = scaled_settings(config, epochs)
    schedule = f"{epochs} epochs, scaled from {config.train.epochs}"
    config = load_config(files, [*(f"{key}={value}" for key, value in scaled.items()), *overrides])
    return Plan(config, schedule, {key: flat_settings(config)[key] for key in scaled})


def make_folder(path: Path, option: str) -> None:
    """Make a folder, which may exist already. Raises InputError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be a folder: {error.strerror}; give another one") from error


def lay_out(run: Path, config: Config, small: SmallState | None) -> None:
    """Make the folder of a run that fastcpc-train starts, or continues from the small state."""
    make_folder(run, "--run")
    if any(run.iterdir()):
        raise InputError(f"--run: {run} is not empty; give a new folder")
    replace_file(run / "config.yaml", to_yaml(config).encode())
    if small is not None:
        replace_file(run / METRICS, small.metrics.encode())
        CheckpointStore(run, 0, small.header).save(small.epoch - 1, small.networks, small.state, best=True)


def ends_here(lines: Sequence[bytes], num_epochs: int, last_epoch: int, left: float) -> bool:
    """Whether a stretch ends at the epoch that has just been closed.

    lines: of metrics.jsonl. num_epochs: of the run. last_epoch: the maximum number of closed epochs. left: seconds that
    remain for the next epoch.
    """
    if len(lines) == num_epochs:
        return False  # only the final cleaning is left, which is short
    return len(lines) >= last_epoch or NEXT_EPOCH * float(json.loads(lines[-1])["seconds"]["total"]) > left


def train(run: Path, live: Path, config: Config, stop: StopRequest, deadline: float, last_epoch: int) -> int:
    """Run fastcpc-train until it ends, a stop is requested, or no further epoch fits.

    Returns its exit code, 0 if it was stopped.

    live: where metrics.jsonl is copied to after each epoch. deadline: by time.monotonic. last_epoch: as ``ends_here``.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "fastcpc.cli.train", "--config", str(run / "config.yaml")]
    asked, metrics = 0.0, run / METRICS
    seen = metrics.read_bytes() if metrics.exists() else b""
    replace_file(live, seen)
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}) as trainer:
        try:
            while trainer.poll() is None:
                now = time.monotonic()
                over = bool(stop.requested) or now > deadline
                text = metrics.read_bytes() if metrics.exists() else b""
                if text != seen and text.endswith(b"\n"):
                    seen = text
                    replace_file(live, text)
                    over |= ends_here(text.splitlines(), config.train.epochs, last_epoch, deadline - now)
                if over and not asked:
                    trainer.terminate()
                    asked = now
                if asked and now > asked + GRACE:
                    trainer.kill()
                time.sleep(0.1)
        finally:
            trainer.kill()
    obeyed = (asked or stop.requested) and trainer.returncode in OBEYED
    return 0 if obeyed else trainer.returncode


def take(run: Path, config: Config, former: SmallState | None, note: dict[str, Any]) -> SmallState | None:
    """The current state of the run; None if it has closed no epoch and has not ended since the former state."""
    found = small_state.newest(run)
    if found is None:
        return None
    path, networks, state = found
    file = run / "summary.json"
    summary = json.loads(file.read_bytes()) if file.exists() else None
    epoch, begin = state["position"]["epoch"], former.epoch if former else 0
    if epoch == begin and summary is None:
        return None
    environment = json.loads((run / "environment.json").read_bytes())
    kept = {key: environment[key] for key in ("commit", "cpu", "gpus", "packages")}
    stretches = [*(former.stretches if former else []), kept | note | {"epochs": [begin, epoch]}]
    metrics = "".join((run / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)[:epoch])
    header = {key: value for key, value in metadata(path).items() if key not in ("epoch", "format")}
    return SmallState(epoch, to_yaml(config), metrics, stretches, summary, header, networks, state)


def result(plan: Plan, small: SmallState, settings: Mapping[str, Any], reach: Sequence[float]) -> dict[str, Any]:
    """The content of the JSON. settings: of the command line. reach: test accuracies in percent."""
    lines = [json.loads(line) for line in small.metrics.splitlines()]
    seconds, passed = [], 0.0
    for line in lines:
        passed += line["seconds"]["total"]
        seconds.append(round(passed, 3))
    top1 = [line["test_top1"] for line in lines]
    reached = {f"{goal:g}": next((i for i, value in enumerate(top1) if value >= goal), None) for goal in reach}
    return {
        **settings,
        "seed": plan.config.run.seed,
        "schedule": plan.schedule,
        "scaled": plan.scaled,
        "finished": small.summary is not None,
        "epochs": [small.epoch, plan.config.train.epochs],
        # of the epochs, without process starts and the unfinished epochs at the ends of stretches
        "seconds": passed,
        "stretch_seconds": sum(stretch["seconds"] for stretch in small.stretches),
        "reach": {goal: None if i is None else {"epoch": i, "seconds": seconds[i]} for goal, i in reached.items()},
        "summary": small.summary,
        "stretches": small.stretches,
        "curve": {"test_top1": top1, "seconds": seconds},
    }


def one_stretch(
    plan: Plan, small: SmallState | None, options: argparse.Namespace, begin: float
) -> tuple[SmallState, int]:
    """Continue from the small state (None: from the start) and write the new one into its folder.

    Returns the new state and the exit code of the command.
    """
    place = tempfile.TemporaryDirectory(prefix="fastcpc-accuracy-") if options.run is None else nullcontext(options.run)
    with place as folder, StopRequest() as stop:
        run = Path(folder)
        config = replace(plan.config, run=replace(plan.config.run, dir=str(run), resume="auto"))
        lay_out(run, config, small)
        make_folder(options.state, "--state")
        note: dict[str, Any] = {"start": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        note |= {"commit": options.commit} if options.commit else {}
        closed = small.epoch if small else 0
        last_epoch = closed + options.stretch_epochs if options.stretch_epochs else config.train.epochs
        deadline = begin + 60 * options.minutes if options.minutes else float("inf")
        code = train(run, options.state / METRICS, config, stop, deadline, last_epoch)
        note |= {"seconds": round(time.monotonic() - begin, 3), "device": config.device, "seed": config.run.seed}
        now = take(run, config, small, note)
        if now is not None:
            small_state.write(options.state, now, keep_momentum=options.momentum)
    if code < 0:
        raise RunError(f"fastcpc-train was ended by signal {-code}; {options.state} holds the epochs that it closed")
    if code > 0:
        raise SystemExit(code)  # the trainer has printed the reason
    if now is None:
        raise RunError(
            f"no epoch ended in this stretch; {options.state} is still at epoch {closed}; give more --minutes"
        )
    return now, 128 + stop.requested if stop.requested else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return report_error("accuracy.py", lambda: _command(argv))


def _command(argv: Sequence[str] | None) -> int:
    begin = time.monotonic()
    options = _parser().parse_intermixed_args(argv)
    for name in ("minutes", "stretch_epochs", "epochs"):
        if not getattr(options, name) >= 0:
            raise InputError(f"--{name.replace('_', '-')}: got {getattr(options, name)}; must be 0 or more")
    plan = make_plan(options.config, options.settings, options.epochs)
    small, code = small_state.read(options.state), 0
    if small is not None:
        small_state.check_same(small, plan.config, options.state)
    if small is None or small.summary is None:
        small, code = one_stretch(plan, small, options, begin)
    name = plan.config.run.name + (f"_{plan.config.train.epochs}_epochs" if plan.scaled else "")
    path = options.results / f"accuracy_{options.name or name}.json"
    settings = {
        "config": [str(file) for file in options.config],
        "overrides": options.settings,
        "momentum": options.momentum,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    content = result(plan, small, settings, options.reach)
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    then = "finished" if small.summary else "the same command resumes"
    print(f"{plan.schedule}: {small.epoch} closed in {len(small.stretches)} stretches; {then}; wrote {path}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(prog="accuracy.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, action="append", required=True, help="YAML file; may be repeated")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="as fastcpc-train takes them")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder of the run between stretches; new or empty at first"
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="of this stretch, the start included; 0: to the end")
    parser.add_argument("--stretch-epochs", type=int, default=0, help="end the stretch after so many epochs")
    parser.add_argument("--epochs", type=int, default=0, help="train so many epochs, the schedule scaled")
    parser.add_argument(
        "--reach", type=float, nargs="+", default=[], help="test accuracies in percent: when they were reached"
    )
    parser.add_argument("--momentum", action="store_true", help="keep the momentum too; twice the files")
    parser.add_argument("--run", type=Path, help="keep this stretch's run folder, a new one, here")
    parser.add_argument("--name", help="of the result: accuracy_NAME.json")
    parser.add_argument("--commit", help="of the code, where no .git beside it tells")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
