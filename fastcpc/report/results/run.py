"""Read a run's folder: settings, metrics, labels and predicted probabilities.

Readers do not change the folder and do not need the data set. A missing, unfinished or damaged run is an InputError in
one line.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcpc.config.load import read_config
from fastcpc.config.schema import Config
from fastcpc.engine.outputs.corrections_file import with_applied
from fastcpc.engine.outputs.labels_file import LABELS_FILE, RunLabels, read_labels
from fastcpc.engine.outputs.metric_keys import METRICS_FILE, has_right_types, is_number
from fastcpc.engine.outputs.pred_probs import PRED_PROBS_FILE
from fastcpc.engine.outputs.score_file import ScoreArrays, read_scores
from fastcpc.errors import InputError

RESUME = "repeat the fastcpc-train command to resume"
_SUMMARY = ("best_top1", "last10_top1", "final_top1", "seconds")


@dataclass(frozen=True)
class Run:
    """A run's folder. metrics: the objects of metrics.jsonl, one per epoch. summary: None until the run is finished."""

    path: Path
    config: Config
    labels: RunLabels
    metrics: tuple[dict[str, Any], ...]
    summary: dict[str, Any] | None

    @property
    def num_samples(self) -> int:
        """Training samples, N."""
        return len(self.labels.given_N)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of their ids."""
        return self.labels.class_names

    def scores(self, name: str) -> ScoreArrays | None:
        """A scores file of the run; None where there is none (yet). InputError where it is damaged."""
        return read_scores(self.path / name, self.num_samples, len(self.class_names))


def read_run(path: Path) -> Run:
    """Read a run, finished or not. InputError: no run, a run that failed before training, damaged files."""
    config = read_config(path)
    if not (path / LABELS_FILE).is_file():
        raise InputError(f"{path} has no {LABELS_FILE}: this run ended before training; start it again")
    try:
        labels = read_labels(path / LABELS_FILE)
    except ValueError as error:
        raise damaged_file(path / LABELS_FILE, str(error)) from None
    return Run(
        path,
        with_applied(config, path),
        labels,
        _read_metrics(path / METRICS_FILE),
        _read_summary(path / "summary.json"),
    )


def read_pred_probs(run: Run) -> NDArray[np.float32]:
    """Both networks' mean softmax, float32 (N, K), a read-only memory map.

    InputError where the run is not finished, or where the file is damaged.
    """
    path = run.path / PRED_PROBS_FILE
    if not path.is_file():
        raise InputError(
            f"{run.path} has no {PRED_PROBS_FILE}: it is written when the run ends, and {progress_of(run)}; {RESUME}"
        )
    try:
        probs_NK = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged_file(path, " ".join(str(error).split())[:120]) from None
    expected = (run.num_samples, len(run.class_names))
    if not isinstance(probs_NK, np.ndarray) or probs_NK.dtype != np.float32 or probs_NK.shape != expected:
        raise damaged_file(path, f"does not hold float32 {expected}, a row per sample and a column per class")
    return probs_NK


def progress_of(run: Run) -> str:
    """The number of finished epochs, as text."""
    done, epochs = len(run.metrics), run.config.train.epochs
    return f"this one has done {done} of {epochs} epochs"


def damaged_file(path: Path, why: str) -> InputError:
    """The error of a damaged file that fastcpc-train writes again from the last checkpoint."""
    return InputError(
        f"{path}: {why}; delete summary.json there and repeat the fastcpc-train command, which writes the file again "
        "from the last checkpoint"
    )


def _read_metrics(path: Path) -> tuple[dict[str, Any], ...]:
    """The complete lines; an incomplete last line (a killed run, or one that is writing it) is skipped."""
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    records = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record["epoch"], int) or not has_right_types(record):
                raise ValueError
        except (ValueError, KeyError):
            raise InputError(
                f"{path}: line {number} is not the object of an epoch (damaged); delete this line and all that follow "
                "to read those before"
            ) from None
        records.append(record)
    return tuple(records)


def _is_whole(summary: dict[str, Any]) -> bool:
    return summary.get("finished") is not True or all(
        summary.get(key) is not None and is_number(summary[key]) for key in _SUMMARY
    )


def _read_summary(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_bytes())
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict) or not _is_whole(summary):
        raise InputError(f"{path}: is damaged; delete it and repeat the fastcpc-train command")
    return summary if summary.get("finished") is True else None
