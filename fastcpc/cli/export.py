"""fastcpc-export: the arguments. The work is in actions/export.py. Exit codes: 0 done, 1 failed, 2 wrong arguments."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.load import read_config

PROGRAM = "fastcpc-export"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    read_config(options.run)
    return load_action("export")(options)


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Write the two networks of a run as a folder that timm or PyTorch loads: safetensors, config.json "
        "and a model card. With --onnx, also write both networks as one ONNX file.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--out", metavar="DIR", type=Path, help="new folder (default: RUN/model)")
    parser.add_argument(
        "--checkpoint", metavar="NAME", default="latest",
        help="latest, best (chosen by the test split), or epoch_XXXX (default: latest)",
    )  # fmt: skip
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx (pip install 'fastcpc[onnx]')")
    parser.add_argument(
        "--license", metavar="ID", default="", help="licence in the model card (default: the licence of the data set)"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier export")
    return parser


if __name__ == "__main__":
    sys.exit(main())
