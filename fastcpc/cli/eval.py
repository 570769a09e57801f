"""fastcpc-eval: the arguments. The work is in actions/eval.py. Exit codes: 0 done, 1 failed, 2 wrong arguments."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.load import read_config
from fastcpc.errors import InputError

PROGRAM = "fastcpc-eval"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    read_config(options.run)
    if options.out is not None and not options.out.parent.is_dir():
        raise InputError(
            f"--out {options.out}: {options.out.parent} is no folder; create it first, or give another name"
        )
    options.out = options.out or options.run / f"eval_{options.split}_{options.checkpoint}.json"
    return load_action("eval")(options)


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Measure the accuracy of the networks of a run: of their sum, of each, and of the prototypes.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--split", default="test", help="test, the name of another test set, or train (default: test)")
    parser.add_argument(
        "--checkpoint", metavar="NAME", default="latest", help="latest, best, or epoch_XXXX (default: latest)"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path,
        help="file of the result, for example where RUN is read-only (default: RUN/eval_SPLIT_CHECKPOINT.json)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device (default: auto)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
