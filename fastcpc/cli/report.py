"""fastcpc-report: the arguments. The work is in actions/report.py. Exit codes: 0 done, 1 failed, 2 wrong arguments."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.load import read_config
from fastcpc.errors import InputError
from fastcpc.report.html.limits import MOST_CARDS

PROGRAM = "fastcpc-report"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    if not 0 <= options.most <= MOST_CARDS:
        raise InputError(f"--most {options.most}: must be in 0..{MOST_CARDS}")
    several = len(options.runs) > 1
    if several and (options.root or options.most != MOST_CARDS):
        raise InputError("--root and --most are about the images of one run; give one RUN")
    for path in options.runs:
        read_config(path)
    options.out = options.out or (Path("comparison.html") if several else options.runs[0] / "report.html")
    _check_target("--out", options.out)
    if options.csv is not None:
        _check_target("--csv", options.csv)
    return load_action("report")(options)


def _check_target(option: str, path: Path) -> None:
    """InputError where the file cannot be written."""
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: no such folder: {path.parent}")


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Write a run as one HTML file: accuracy, noise, curves and suspects. Write several runs as a "
        "table: mean and spread over seeds, differences from a baseline, the numbers of the paper.",
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a run, finished or not")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="HTML file (default: RUN/report.html; with several runs comparison.html)",
    )
    parser.add_argument("--root", metavar="DIR", default="", help="folder of the images, if not data.root")
    parser.add_argument(
        "--most", metavar="N", type=int, default=MOST_CARDS, help=f"number of suspects to show (default: {MOST_CARDS})"
    )
    parser.add_argument(
        "--baseline", metavar="RUN|KEY=VALUE", default="",
        help="baseline of the comparison: a run (with its other seeds), or the runs with this setting, such as "
        "cleaner.kind=none",
    )  # fmt: skip
    parser.add_argument("--csv", metavar="FILE", type=Path, help="also write the table of runs as CSV")
    return parser


if __name__ == "__main__":
    sys.exit(main())
