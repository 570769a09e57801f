"""fastcpc-clean: the arguments. The work is in actions/clean.py.

Exit codes: 0 done, 1 a file cannot be written, 2 wrong arguments, or a run that has not cleaned yet.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.arguments import csv_file, json_file, new_file, probability, table_file
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.load import read_config
from fastcpc.errors import InputError

PROGRAM = "fastcpc-clean"
CAUTION = (
    "The scores are in-sample: the networks were trained on these images. Each network learns from the samples that "
    "the other one predicted clean, which reduces the bias. Check an image before you delete it."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    read_config(options.run)
    if options.corrections and not options.corrections.is_file():
        raise InputError(f"--corrections {options.corrections}: no such file")
    if options.corrections_out and not options.corrections:
        raise InputError("--corrections-out: needs --corrections FILE, the decisions to write")
    if options.out is None and not options.corrections:
        options.out = options.run / "suspects.csv"
    _check_targets(options)
    return load_action("clean")(options)


def _check_targets(options: argparse.Namespace) -> None:
    """InputError where a file exists already, or where two options name one file."""
    names = ("out", "cleaned_list", "corrections_out", "label_studio", "near_duplicates")
    given = {f"--{name.replace('_', '-')}": getattr(options, name) for name in names if getattr(options, name)}
    seen: dict[Path, str] = {}
    for option, target in given.items():
        new_file(target, force=options.force)
        before = seen.setdefault(target.resolve(), option)
        if before != option:
            raise InputError(f"{before} and {option} are both {target}; give two names")
        if options.corrections and target.resolve() == options.corrections.resolve():
            raise InputError(f"--corrections and {option} are both {target}; give two names")


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="List the suspects of a run, worst first, each with a suggested label.",
        epilog=CAUTION,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=table_file,
        help="table of the suspects, .csv or .parquet (default: RUN/suspects.csv; with --corrections none)",
    )
    parser.add_argument(
        "--all", action="store_true", help="write all samples; the column is_label_issue marks the suspects"
    )
    parser.add_argument(
        "--threshold", metavar="T", type=probability,
        help="a suspect has a clean probability of at most T, in [0, 1] (default: cleaner.tau of the run)",
    )  # fmt: skip
    parser.add_argument(
        "--cleaned-list", metavar="FILE", type=Path,
        help="also write the samples without suspects, in the list format of the data set. digits, CIFAR: .csv for "
        "noise.file, with suggested labels for the suspects; clothing1m: key list; webvision: file list; imagefolder: "
        ".csv or .parquet for data.list, or a new folder of links",
    )  # fmt: skip
    parser.add_argument(
        "--corrections", metavar="FILE", type=Path,
        help="decisions about suspects: corrections.csv of the report, or Label Studio's JSON export. --cleaned-list "
        "then applies them and no others; other files omit the samples that have a decision",
    )  # fmt: skip
    parser.add_argument(
        "--corrections-out", metavar="FILE.csv", type=csv_file, help="also write the decisions as corrections.csv"
    )
    parser.add_argument(
        "--label-studio", metavar="FILE.json", type=json_file,
        help="also write the suspects as tasks for Label Studio, with suggested labels, and FILE.xml, the interface",
    )  # fmt: skip
    parser.add_argument(
        "--near-duplicates", metavar="FILE", type=table_file,
        help="also write suspects with near duplicates that have another label, .csv or .parquet",
    )  # fmt: skip
    parser.add_argument(
        "--root", metavar="DIR", default="", help="folder of the data set for --cleaned-list (default: data.root)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files, but not folders")
    return parser


if __name__ == "__main__":
    sys.exit(main())
