"""fastcpc-reproduce: a table or figure of the CPC paper, from runs that are there or are trained now.

Exit codes: 0 done, 1 failed, 2 usage, 130 and 143 after SIGINT and SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import fastcpc
from fastcpc.atomic_io import replace_file
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.errors import InputError
from fastcpc.report.paper.experiments import NAMES, SCALES, Experiment, experiment
from fastcpc.report.paper.grid import Grid, train_missing
from fastcpc.report.paper.tables import Results, as_json, figure, markdown

PROGRAM = "fastcpc-reproduce"
CONFIGS = Path(fastcpc.__file__).resolve().parent.parent / "configs"
MOST_SEEDS = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the process's own."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_intermixed_args(argv)))


def _command(options: argparse.Namespace) -> int:
    chosen = experiment(options.experiment, options.scale)
    seeds = chosen.seeds if options.seeds is None else options.seeds
    cores = os.cpu_count() or 1
    jobs = options.jobs or (cores if options.scale == "small" else 1)
    if not 1 <= seeds <= MOST_SEEDS or not jobs >= 1:
        raise InputError(f"--seeds and --jobs must be 1 or more (seeds at most {MOST_SEEDS}), got {seeds} and {jobs}")
    grid = grid_of(options.scale, options.out, options.configs, tuple(options.settings), options.data_root)
    cells = [cell for place in chosen.places for cell in place.cells(seeds)]
    missing = [cell for cell in cells if grid.finished(cell) is None]
    print(
        f"{chosen.name}, {options.scale} scale: {len(cells) - len(missing)} of {len(cells)} runs are there", flush=True
    )
    if options.dry_run:
        for cell in missing:
            print(f"missing: {grid.path(cell)}")
        return 0
    signum = train_missing(grid, cells, jobs, lambda line: print(line, flush=True))
    if signum:
        print(f"{PROGRAM}: stopped; start the same command again to go on", file=sys.stderr)
        return 128 + signum
    write(chosen, options.scale, grid, collect(chosen, grid, seeds), options.out)
    return 0


def grid_of(scale: str, out: Path, configs: Path, settings: tuple[str, ...] = (), data_root: str = "") -> Grid:
    """The grid of a scale below an output folder; the small one runs on the CPU."""
    small = scale == "small"
    return Grid(out / "runs", configs, (*(("device=cpu",) if small else ()), *settings), data_root, one_thread=small)


def collect(chosen: Experiment, grid: Grid, seeds: int) -> Results:
    """The finished runs of every place."""
    return {
        place: [run for cell in place.cells(seeds) if (run := grid.finished(cell)) is not None]
        for place in chosen.places
    }


def write(chosen: Experiment, scale: str, grid: Grid, results: Results, out: Path) -> None:
    """Write NAME.json and NAME.md, or NAME.svg and NAME.png, and say where; a table is printed too."""
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


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="A table or figure of the CPC paper. Finished runs are taken, others trained; when stopped, the "
        "same command goes on.",
    )
    parser.add_argument("experiment", choices=NAMES, help="table or figure, as the paper numbers them")
    parser.add_argument(
        "settings", metavar="key=value", nargs="*", help="a setting for every run, such as train.epochs=8"
    )
    parser.add_argument(
        "--scale", choices=SCALES, default="full",
        help="full: the paper's data and epochs, days on a GPU; small: the same on scikit-learn's digits, "
        "minutes on a CPU (default: full)",
    )  # fmt: skip
    parser.add_argument("--seeds", metavar="N", type=int, help="seeds 1..N (default: 3; figures 1 and 4: 1)")
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=0, help="runs at a time (default: 1; small: one a core)"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", default="", help="folder of the data sets (default: the configs')"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("runs/reproduce"),
        help="gets the results, and the runs below runs/ (default: runs/reproduce)",
    )  # fmt: skip
    parser.add_argument(
        "--configs",
        metavar="DIR",
        type=Path,
        default=CONFIGS,
        help="the repository's configs (default: beside the package)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs that are missing and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
