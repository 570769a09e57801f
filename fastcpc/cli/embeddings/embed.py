"""fastcpc-embed: the arguments. The work is in actions/embed.py.

Exit codes: 0 done, 1 failed or too many unreadable images, 2 wrong arguments or files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.arguments import add_embedding_options, one_source
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.errors import InputError

PROGRAM = "fastcpc-embed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(arguments(argv)))


def _command(options: argparse.Namespace) -> int:
    return load_action("embed")(options)  # after the arguments are checked


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command. InputError for wrong ones."""
    options = _parser().parse_args(argv)
    options.source = one_source(options.source)
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out}: is a file, not a folder")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Embed images with a frozen network: embeddings.npy (N, D) float16, index.parquet and embed.json. "
        "Repeat the command to resume. Several processes: torchrun --standalone --nproc-per-node=N -m "
        "fastcpc.cli.embeddings.embed ...",
    )
    parser.add_argument(
        "source", metavar="SOURCE", nargs="+",
        help="folder with a folder per class, below train/, val/, test/ or not; a list with the columns path and label "
        "(csv, tsv, parquet, txt); or shards (.tar) or Parquet files with images: a file, folder or quoted pattern",
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="new folder for the embeddings")
    add_embedding_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
