"""Train the missing runs of a grid, each in its own process; finished runs are reused."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from fastcpc.config.load import load_config, read_config
from fastcpc.config.names import DATASETS
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.config_diff import changed_settings
from fastcpc.engine.step_loop import StopRequest
from fastcpc.errors import InputError, RunError
from fastcpc.report.paper.experiments import GridRun
from fastcpc.report.results.run import Run, read_run

USAGE = 2  # exit code for wrong settings or data, which the other runs share


@dataclass(frozen=True)
class Grid:
    """The folder of a grid and the settings that its runs share.

    folder: contains a folder per run. configs: folder of the config files. settings: key=value for every run.
    data_root: the folder with the data sets; empty: as in the configs. one_thread: whether each run uses one thread.
    """

    folder: Path
    configs: Path
    settings: tuple[str, ...] = ()
    data_root: str = ""
    one_thread: bool = False

    def path(self, grid_run: GridRun) -> Path:
        """The folder of a run."""
        return self.folder / grid_run.name

    def arguments(self, grid_run: GridRun) -> list[str]:
        """The arguments of fastcpc-train for a run."""
        file = self.configs / f"{grid_run.config}.yaml"
        if not file.is_file():
            raise InputError(f"{file}: no such file; give the folder of the repository's configs: --configs DIR")
        # as published: no guard, which our own configs have, and mean and std of the data set
        paper = ["log.figures_every=0", "cleaner.guard=none", "data.normalise=data"]
        own = [f"cleaner.kind={grid_run.cleaner}", f"run.seed={grid_run.seed}", f"run.dir={self.path(grid_run)}"]
        return ["--config", str(file), *self._root(grid_run), *paper, *self.settings, *own]

    def config(self, grid_run: GridRun) -> Config:
        """The config of a run."""
        arguments = self.arguments(grid_run)
        return load_config([Path(arguments[1])], arguments[2:])

    def finished(self, grid_run: GridRun) -> Run | None:
        """The run, or None until it is finished. InputError where the folder contains a run with different settings."""
        path = self.path(grid_run)
        if not (path / "config.yaml").is_file():
            return None
        changed = changed_settings(read_config(path), self.config(grid_run))
        if changed:
            raise InputError(f"{path} contains a run with different settings: {', '.join(changed)}; give another --out")
        if not (path / "summary.json").is_file():
            return None
        run = read_run(path)
        return run if run.summary is not None else None

    def _root(self, grid_run: GridRun) -> list[str]:
        name = next(word for word in re.split("[/_]", grid_run.config) if word in DATASETS)
        if not self.data_root or not DATASETS[name].needs_root:
            return []
        own = Path(self.data_root) / name
        return [f"data.root={own if own.is_dir() else self.data_root}"]


def train_missing(grid: Grid, grid_runs: Sequence[GridRun], jobs: int, say: Callable[[str], object]) -> int:
    """Train the unfinished runs, ``jobs`` at a time; interrupted runs resume.

    say: called with a line for each run that ends. On SIGINT and SIGTERM the runs write a checkpoint, and the number of
    the signal is returned, else 0. The other runs continue after a failure, unless its settings or data are wrong.
    RunError lists the failed runs.
    """
    missing = [grid_run for grid_run in grid_runs if grid.finished(grid_run) is None]
    try:
        grid.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{grid.folder}: cannot be created ({error.strerror}); give another --out") from None
    failed: list[str] = []
    num_ended, terminated = 0, False
    with StopRequest() as stop, ThreadPoolExecutor(jobs) as pool:
        queue, running = list(missing), dict[Future[int], tuple[GridRun, subprocess.Popen[bytes]]]()
        while running or (queue and not stop.requested):
            while queue and len(running) < jobs and not stop.requested:
                grid_run = queue.pop(0)
                process = _start(grid, grid_run)
                running[pool.submit(process.wait)] = grid_run, process
            ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            if stop.requested and not terminated:
                terminated = True  # once: a second signal would abort a run that is stopping
                for _, process in running.values():
                    process.terminate()
            for future in ended:
                grid_run, _ = running.pop(future)
                code = future.result()
                if code and not stop.requested:
                    failed.append(f"{grid_run.name}: {_last_error(grid, grid_run)}")
                    queue = [] if code == USAGE else queue
                num_ended += 1
                say(f"{num_ended}/{len(missing)} {grid_run.name}: {_outcome(grid, grid_run, code)}")
    if failed:
        raise RunError(
            "\n".join([f"{len(failed)} of {len(missing)} runs failed; repeat the command to try them again", *failed])
        )
    return stop.requested


def _start(grid: Grid, grid_run: GridRun) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "fastcpc.cli.train", *grid.arguments(grid_run)]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if grid.one_thread else {})
    with _stderr_file(grid, grid_run).open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=file)


def _stderr_file(grid: Grid, grid_run: GridRun) -> Path:
    return grid.folder / f"{grid_run.name}.err"


def _last_error(grid: Grid, grid_run: GridRun) -> str:
    lines = _stderr_file(grid, grid_run).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"


def _outcome(grid: Grid, grid_run: GridRun, code: int) -> str:
    run = grid.finished(grid_run) if code == 0 else None
    if run is None or run.summary is None:
        return f"ended with {code}"
    _stderr_file(grid, grid_run).unlink(missing_ok=True)
    return f"top-1 {run.summary['last10_top1']:.2f} (mean of the last 10) in {run.summary['seconds']:.0f} s"
