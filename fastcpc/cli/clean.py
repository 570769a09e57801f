"""fastcpc-clean: the arguments. The work is in actions/clean.py.

Exit codes: 0 done, 1 a file cannot be written, 2 wrong arguments, or a run that has not cleaned yet.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.arguments import new_file, probability, table_file
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
    options.out = options.out or options.run / "suspects.csv"
    targets = [options.out, *([options.cleaned_list] if options.cleaned_list else [])]
    for target in targets:
        new_file(target, force=options.force)
    if len({target.resolve() for target in targets}) < len(targets):
        raise InputError(f"--out and --cleaned-list are both {options.out}; give two names")
    return load_action("clean")(options)


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
        help="table of the suspects, .csv or .parquet (default: RUN/suspects.csv)",
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
        "--root", metavar="DIR", default="", help="folder of the data set for --cleaned-list (default: data.root)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files, but not folders")
    return parser


if __name__ == "__main__":
    sys.exit(main())
