"""fastcpc-export: write the networks of a run as a folder for use elsewhere. Nothing is uploaded."""

import argparse
from pathlib import Path
from typing import Any

from fastcpc.engine.checkpoint.resume import epoch_of, find_checkpoint
from fastcpc.report.export.folder_writer import check_target, write_folder
from fastcpc.report.export.model_card import card
from fastcpc.report.export.model_folder import files_of, model_of
from fastcpc.report.export.onnx_file import onnx_bytes, require_onnx
from fastcpc.report.results.run import Run, read_run


def run(options: argparse.Namespace) -> int:
    """Write the folder of the exported model; returns the exit code. options: of ``fastcpc.cli.export``."""
    run = read_run(options.run)
    target = options.out or run.path / "model"
    check_target(target, force=options.force)
    if options.onnx:
        require_onnx()
    checkpoint = find_checkpoint(run.path, options.checkpoint)
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
    """The metrics of the epoch of a checkpoint, from metrics.jsonl; empty where the epoch is not finished."""
    epoch = epoch_of(checkpoint)
    return next((record for record in run.metrics if record["epoch"] == epoch), {})
