"""fastcpc-export: a run's networks as a folder for use elsewhere. Exit codes: 0 done, 1 failed, 2 usage.

Nothing is uploaded.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.engine.checkpoint.resume import epoch_of, named
from fastcpc.report.export.folder_writer import refuse_folder, write_folder
from fastcpc.report.export.model_card import card
from fastcpc.report.export.model_folder import files_of, model_of
from fastcpc.report.export.onnx_file import onnx_bytes, require_onnx
from fastcpc.report.results.run import Run, read_run

PROGRAM = "fastcpc-export"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the process's own."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    run = read_run(options.run)
    target = options.out or run.path / "model"
    refuse_folder(target, force=options.force)
    if options.onnx:
        require_onnx()
    checkpoint = named(run.path, options.checkpoint)
    model = model_of(run, checkpoint)
    files = files_of(model)
    if options.onnx:
        files["model.onnx"] = onnx_bytes(model)
    metrics = metrics_of(run, checkpoint)
    text = card(
        run, model, metrics, checkpoint=checkpoint.name, has_onnx=options.onnx, licence=options.license
    )  # fmt: skip
    files["README.md"] = text.encode("utf-8", "replace")
    write_folder(target, files)
    size = sum(map(len, files.values())) / 1e6
    print(f"{checkpoint}: {len(model.networks)} x {model.architecture.name}, {len(model.class_names)} classes")
    print(f"written to {target} ({len(files)} files, {size:.1f} MB); {target / 'README.md'} says how to use it")
    return 0


def metrics_of(run: Run, checkpoint: Path) -> dict[str, Any]:
    """The line of metrics.jsonl of a checkpoint's epoch; empty where the epoch was not finished."""
    epoch = epoch_of(checkpoint)
    return next((record for record in run.metrics if record["epoch"] == epoch), {})


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Write a run's two networks as a folder that timm (or plain PyTorch) loads: safetensors, "
        "config.json, a card; with --onnx both as one ONNX file.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder to make (default: RUN/model)")
    parser.add_argument(
        "--checkpoint", metavar="NAME", default="latest",
        help="latest, best (chosen by the test split), or epoch_XXXX (default: latest)",
    )  # fmt: skip
    parser.add_argument("--onnx", action="store_true", help="write model.onnx too (pip install 'fastcpc[onnx]')")
    parser.add_argument(
        "--license", metavar="ID", default="", help="licence in the card (default: what is known of the data set)"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier export")
    return parser


if __name__ == "__main__":
    sys.exit(main())
