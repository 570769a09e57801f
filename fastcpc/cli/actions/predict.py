"""fastcpc-predict: classify images with both networks of an exported model or of a run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from fastcpc.atomic_io import replace_file
from fastcpc.cli.predict import PROGRAM
from fastcpc.config.constraints import shown
from fastcpc.config.sources import path_text
from fastcpc.data.cores import usable_cores
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.errors import InputError, RunError
from fastcpc.report.export.ensemble import ExportedModel
from fastcpc.report.export.model_folder import load_model, model_of
from fastcpc.report.export.predictions import Prediction, find_images, predict
from fastcpc.report.results.run import read_run
from fastcpc.report.results.suspect_files import table_writer


def run(options: argparse.Namespace) -> int:
    """Print a line per image and write the table; returns the exit code. options: of ``fastcpc.cli.predict``."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no usable GPU here; use --device cpu")
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    paths, skipped = find_images(options.images)
    for text in skipped:
        print(f"{PROGRAM}: {path_text(text)}", file=sys.stderr)
    model = open_model(options.model)
    done = []
    for one in predict(model, paths, torch.device("cuda" if on_gpu else "cpu"), num_threads=usable_cores()):
        done.append(one)
        if one.prob_K is None:
            print(f"{PROGRAM}: broken: {path_text(one.path)}: {one.problem}", file=sys.stderr)
        else:
            print(line(model, one, options.top))
    if options.out:
        replace_file(options.out, table_writer(options.out)(table(model, done)))
        print(f"{len(done):,} rows written to {options.out}")
    num_broken = sum(one.prob_K is None for one in done)
    if num_broken:
        raise RunError(f"{num_broken:,} of {len(done):,} images cannot be read")
    return 0


def open_model(folder: Path) -> ExportedModel:
    """The exported model in a folder, or the newest valid checkpoint of a run."""
    if (folder / "config.yaml").is_file():
        run = read_run(folder)
        return model_of(run, find_checkpoint(run.path, "latest"))
    return load_model(folder)


def line(model: ExportedModel, one: Prediction, top: int) -> str:
    """The printed line of an image: the likeliest classes with their probabilities, then the path."""
    assert one.prob_K is not None
    best = np.argsort(-one.prob_K, kind="stable")[:top]
    classes = "  ".join(f"{one.prob_K[k]:.4f} {shown(model.class_names[k])}" for k in best.tolist())
    return f"{classes}  {path_text(one.path)}"


def table(model: ExportedModel, done: Sequence[Prediction]) -> pa.Table:
    """One row per image: path, class and its id, probability, the error (``fault``), and a probability per class."""
    probs = [one.prob_K for one in done]
    best = [None if prob_K is None else int(prob_K.argmax()) for prob_K in probs]
    columns = {
        "path": pa.array([one.path.encode("utf-8", "replace").decode() for one in done], pa.string()),
        "predicted_label": pa.array(best, pa.int64()),
        "predicted_class": pa.array([None if k is None else model.class_names[k] for k in best], pa.string()),
        "probability": pa.array([None if p is None else float(p.max()) for p in probs], pa.float32()),
        "fault": pa.array([one.problem or None for one in done], pa.string()),
    }
    for k in range(len(model.class_names)):
        columns[f"p_{k}"] = pa.array([None if p is None else float(p[k]) for p in probs], pa.float32())
    return pa.table(columns)
