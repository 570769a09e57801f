"""fastcpc-report: a run as one HTML file, or several runs as a table. Exit codes: 0 done, 1 failed, 2 usage."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.atomic_io import replace_file
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.errors import InputError
from fastcpc.report.html.comparison import compare, to_csv
from fastcpc.report.html.gallery import MOST_CARDS
from fastcpc.report.html.page import comparison_page, run_page
from fastcpc.report.html.tensorboard import write_events
from fastcpc.report.results.run import Run, read_run

PROGRAM = "fastcpc-report"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the process's own."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    if not 0 <= options.most <= MOST_CARDS:
        raise InputError(f"--most {options.most}: must lie in 0..{MOST_CARDS}")
    several = len(options.runs) > 1
    if several and (options.root or options.most != MOST_CARDS or options.tensorboard):
        raise InputError("--root, --most and --tensorboard are about the pictures of one run; give one RUN")
    target = options.out or (Path("comparison.html") if several else options.runs[0] / "report.html")
    runs = [read_run(path) for path in options.runs]
    check_target("--out", target)
    if options.csv is not None:
        check_target("--csv", options.csv)
    baseline = _baseline(options.baseline, runs)
    comparison = None
    if several:
        others = [baseline] if isinstance(baseline, Run) and all(baseline is not run for run in runs) else []
        comparison = compare([*runs, *others], baseline)
        page = comparison_page(comparison)
    else:
        if isinstance(baseline, str):
            raise InputError(f"--baseline {baseline}: one RUN is compared with another run; give its folder")
        page = run_page(runs[0], root=options.root, most_cards=options.most, baseline=baseline)
        if options.csv is not None:
            comparison = compare([*runs, baseline] if baseline else runs, baseline)
    _write(target, page)
    if options.tensorboard:
        folder, tags = write_events(runs[0], options.root)
        print(f"written to {folder}: {', '.join(tags) or 'nothing, there is none to draw yet'}")
    if options.csv is not None and comparison is not None:
        _write(options.csv, to_csv(comparison))
    return 0


def _baseline(text: str, runs: Sequence[Run]) -> Run | str | None:
    """A run, or key=value; InputError where it is neither."""
    if not text:
        return None
    if "=" in text and not Path(text).is_dir():
        return text
    path = Path(text)
    known = (run for run in runs if path.is_dir() and run.path.resolve() == path.resolve())
    return next(known, None) or read_run(path)


def _write(path: Path, text: str) -> None:
    replace_file(path, text.encode())
    print(f"written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


def check_target(option: str, path: Path) -> None:
    """InputError, before any work is done, where no file can lie."""
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}")


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="A run as one HTML file: accuracy, noise, curves and suspected labels. Several runs as a table: "
        "mean and spread over seeds, differences from a baseline, the paper's numbers.",
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a run, finished or not")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="HTML file to write (default: RUN/report.html; comparison.html)",
    )
    parser.add_argument("--root", metavar="DIR", default="", help="where the images lie now, if no longer in data.root")
    parser.add_argument(
        "--most", metavar="N", type=int, default=MOST_CARDS, help=f"suspected labels to show (default: {MOST_CARDS})"
    )
    parser.add_argument(
        "--baseline", metavar="RUN|KEY=VALUE", default="",
        help="what to compare with: a run (and its other seeds), or of several runs those with this setting, such as "
        "cleaner.kind=none",
    )  # fmt: skip
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also put losses, AUC, confusion and the worst labels among the run's events, as training does",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="also write the table of runs as CSV")
    return parser


if __name__ == "__main__":
    sys.exit(main())
