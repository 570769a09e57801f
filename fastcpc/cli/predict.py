"""fastcpc-predict: the arguments. The work is in actions/predict.py.

Exit codes: 0 every image was read, 1 some were not, 2 wrong arguments.
"""

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.arguments import new_file, positive, table_file
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.errors import InputError

PROGRAM = "fastcpc-predict"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    if options.out:
        new_file(options.out, force=options.force)
    if not options.model.is_dir():
        raise InputError(f"{options.model} is not a folder; give an exported model (fastcpc-export) or a run's folder")
    for name in options.images:
        if not os.path.lexists(name) and not glob.has_magic(name):
            raise InputError(f"{name}: no such file or folder")
    return load_action("predict")(options)


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Classify images with both networks of a model. Images that cannot be read are reported by name.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="folder from fastcpc-export, or folder of a run")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="files, folders (with all subfolders), or quoted patterns"
    )
    parser.add_argument(
        "--top", metavar="K", type=positive, default=1, help="number of classes to print per image (default: 1)"
    )
    parser.add_argument("--out", metavar="FILE", type=table_file, help="table with all probabilities, .csv or .parquet")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device (default: auto)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
