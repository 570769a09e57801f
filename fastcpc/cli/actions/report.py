"""fastcpc-report: write a run as one HTML file, or several runs as a table."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fastcpc.atomic_io import replace_file
from fastcpc.errors import InputError
from fastcpc.report.html.comparison import compare, to_csv
from fastcpc.report.html.page import comparison_page, run_page
from fastcpc.report.results.run import Run, read_run


def run(options: argparse.Namespace) -> int:
    """Write the page and, with --csv, the table; returns the exit code. options: of ``fastcpc.cli.report``."""
    runs = [read_run(path) for path in options.runs]
    baseline = _baseline(options.baseline, runs)
    comparison = None
    if len(runs) > 1:
        others = [baseline] if isinstance(baseline, Run) and all(baseline is not run for run in runs) else []
        comparison = compare([*runs, *others], baseline)
        page = comparison_page(comparison)
    else:
        if isinstance(baseline, str):
            raise InputError(f"--baseline {baseline}: one RUN needs another run as its baseline; give its folder")
        page = run_page(runs[0], root=options.root, most_cards=options.most, baseline=baseline)
        if options.csv is not None:
            comparison = compare([*runs, baseline] if baseline else runs, baseline)
    _write(options.out, page)
    if options.csv is not None and comparison is not None:
        _write(options.csv, to_csv(comparison))
    return 0


def _baseline(text: str, runs: Sequence[Run]) -> Run | str | None:
    """The baseline: a run, or key=value; InputError where it is neither."""
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
