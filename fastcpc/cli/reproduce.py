"""fastcpc-reproduce: the arguments. The work is in actions/reproduce.py.

Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 and 143 after SIGINT and SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.load import load_config
from fastcpc.config.packaged import CONFIGS
from fastcpc.errors import InputError
from fastcpc.report.paper.experiments import NAMES, SCALES, experiment

PROGRAM = "fastcpc-reproduce"
MOST_SEEDS = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_intermixed_args(argv)))


def _command(options: argparse.Namespace) -> int:
    chosen = experiment(options.experiment, options.scale)
    options.seeds = chosen.seeds if options.seeds is None else options.seeds
    options.jobs = options.jobs or ((os.cpu_count() or 1) if options.scale == "small" else 1)
    if not 1 <= options.seeds <= MOST_SEEDS or not options.jobs >= 1:
        raise InputError(
            f"--seeds and --jobs must be 1 or more (seeds at most {MOST_SEEDS}), got {options.seeds} and {options.jobs}"
        )
    first = chosen.cells[0]
    if (options.configs / f"{first.config}.yaml").is_file():  # else the grid reports it
        load_config([options.configs / f"{first.config}.yaml"], [*options.settings, f"cleaner.kind={first.cleaner}"])
    return load_action("reproduce")(options)


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Reproduce a table or figure of the CPC paper. Finished runs are reused, missing runs are trained. "
        "Repeat the command to resume a stopped grid.",
    )
    parser.add_argument("experiment", choices=NAMES, help="number of the table or figure in the paper")
    parser.add_argument(
        "settings", metavar="key=value", nargs="*", help="a setting for every run, such as train.epochs=8"
    )
    parser.add_argument(
        "--scale", choices=SCALES, default="full",
        help="full: data sets and epochs of the paper, days on a GPU; small: the digits of scikit-learn, minutes on a "
        "CPU (default: full)",
    )  # fmt: skip
    parser.add_argument("--seeds", metavar="N", type=int, help="seeds 1..N (default: 3; figures 1 and 4: 1)")
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        default=0,
        help="number of runs at the same time (default: 1; small: one per core)",
    )
    parser.add_argument(
        "--data-root", metavar="DIR", default="", help="folder of the data sets (default: data.root of the configs)"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("runs/reproduce"),
        help="folder of the results; the runs are in its folder runs/ (default: runs/reproduce)",
    )  # fmt: skip
    parser.add_argument(
        "--configs",
        metavar="DIR",
        type=Path,
        default=CONFIGS,
        help="folder of the configs (default: the packaged configs)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the missing runs and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
