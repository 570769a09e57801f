"""fastcpc-report: a run as one HTML file, or several runs as a table. Exit codes: 0 done, 1 failed, 2 usage."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.failure import InputParser, report
from fastcpc.engine.atomic import replace_file
from fastcpc.errors import InputError
from fastcpc.report.gallery import MOST_CARDS
from fastcpc.report.page import run_page
from fastcpc.report.run import read_run

PROGRAM = "fastcpc-report"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the process's own."""
    return report(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    if not 0 <= options.most <= MOST_CARDS:
        raise InputError(f"--most {options.most}: must lie in 0..{MOST_CARDS}")
    target = options.out or options.runs[0] / "report.html"
    run = read_run(options.runs[0])
    check_target(target)
    baseline = read_run(Path(options.baseline)) if options.baseline else None
    page = run_page(run, root=options.root, most_cards=options.most, baseline=baseline)
    replace_file(target, page.encode())
    print(f"written to {target} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


def check_target(path: Path) -> None:
    """InputError, before any work is done, where no file can lie."""
    if path.is_dir():
        raise InputError(f"--out {path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM, description="A run as one HTML file: accuracy, noise, curves and the suspected labels."
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs=1, help="folder of a run, finished or not")
    parser.add_argument("--out", metavar="FILE", type=Path, help="HTML file to write (default: RUN/report.html)")
    parser.add_argument("--root", metavar="DIR", default="", help="where the images lie now, if no longer in data.root")
    parser.add_argument(
        "--most", metavar="N", type=int, default=MOST_CARDS, help=f"suspected labels to show (default: {MOST_CARDS})"
    )
    parser.add_argument("--baseline", metavar="RUN", default="", help="another run to compare the accuracy with")
    return parser


if __name__ == "__main__":
    sys.exit(main())
