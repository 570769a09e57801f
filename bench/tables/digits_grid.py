"""What the benches of the paper's experiments on digits share: options, and a grid that is trained."""

import argparse
import os
from pathlib import Path

from pages import ROOT

from fastcpc.cli.actions.reproduce import collect, grid_of
from fastcpc.report.paper.experiments import Experiment, experiment
from fastcpc.report.paper.grid import Grid, train_missing
from fastcpc.report.paper.tables import Results


def arguments(description: str) -> argparse.ArgumentParser:
    """The options of such a bench: ``jobs``, ``out``."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce", help="where the runs are kept")
    return parser


def trained(name: str, seeds: int, options: argparse.Namespace) -> tuple[Experiment, Grid, Results]:
    """Train the missing runs of an experiment at its small scale, and return it with all its runs.

    seeds: 0 takes the experiment's own number. Raises SystemExit (128 + the signal) if it was stopped.
    """
    chosen, grid = experiment(name, "small"), grid_of("small", options.out, ROOT / "configs")
    seeds = seeds or chosen.seeds
    grid_runs = [grid_run for cell in chosen.cells for grid_run in cell.runs(seeds)]
    signum = train_missing(grid, grid_runs, options.jobs, lambda line: print(line, flush=True))
    if signum:
        raise SystemExit(128 + signum)
    return chosen, grid, collect(chosen, grid, seeds)
