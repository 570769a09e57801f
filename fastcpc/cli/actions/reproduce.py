"""fastcpc-reproduce: train the missing runs of a table or figure of the CPC paper, and write the result."""

import argparse
import sys
from pathlib import Path

from fastcpc.atomic_io import replace_file
from fastcpc.cli.reproduce import PROGRAM
from fastcpc.report.paper.experiments import Experiment, experiment
from fastcpc.report.paper.grid import Grid, train_missing
from fastcpc.report.paper.tables import Results, as_json, figure, markdown


def run(options: argparse.Namespace) -> int:
    """Train the missing runs and write the results; returns the exit code. options: of ``fastcpc.cli.reproduce``."""
    chosen, seeds = experiment(options.experiment, options.scale), options.seeds
    grid = grid_of(options.scale, options.out, options.configs, tuple(options.settings), options.data_root)
    grid_runs = [grid_run for cell in chosen.cells for grid_run in cell.runs(seeds)]
    missing = [grid_run for grid_run in grid_runs if grid.finished(grid_run) is None]
    print(
        f"{chosen.name}, {options.scale} scale: {len(grid_runs) - len(missing)} of {len(grid_runs)} runs are finished",
        flush=True,
    )
    if options.dry_run:
        for grid_run in missing:
            print(f"missing: {grid.path(grid_run)}")
        return 0
    signum = train_missing(grid, grid_runs, options.jobs, lambda line: print(line, flush=True))
    if signum:
        print(f"{PROGRAM}: stopped; repeat the command to resume", file=sys.stderr)
        return 128 + signum
    write(chosen, options.scale, grid, collect(chosen, grid, seeds), options.out)
    return 0


def grid_of(scale: str, out: Path, configs: Path, settings: tuple[str, ...] = (), data_root: str = "") -> Grid:
    """The grid of a scale in an output folder; the small scale runs on the CPU."""
    small = scale == "small"
    return Grid(out / "runs", configs, (*(("device=cpu",) if small else ()), *settings), data_root, one_thread=small)


def collect(chosen: Experiment, grid: Grid, seeds: int) -> Results:
    """The finished runs per cell of the table or figure."""
    return {
        cell: [run for grid_run in cell.runs(seeds) if (run := grid.finished(grid_run)) is not None]
        for cell in chosen.cells
    }


def write(chosen: Experiment, scale: str, grid: Grid, results: Results, out: Path) -> None:
    """Write NAME.json and NAME.md, or NAME.svg and NAME.png, and print their paths; a table is also printed."""
    name = chosen.name if scale == "full" else f"{chosen.name}-small"
    outputs = {f"{name}.json": as_json(chosen, scale, grid.settings, results).encode()}
    if chosen.name.startswith("table"):
        lines = markdown(chosen, results)
        print("\n".join(lines))
        outputs[f"{name}.md"] = ("\n".join(lines) + "\n").encode()
    else:
        svg, png = figure(chosen, results)
        outputs |= {f"{name}.svg": svg.encode(), f"{name}.png": png}
    for file, data in outputs.items():
        replace_file(out / file, data)
    print(f"written to {', '.join(str(out / file) for file in outputs)}")
