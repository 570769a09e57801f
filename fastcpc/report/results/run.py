"""A run's folder, read back: settings, metrics, labels and predicted probabilities.

Nothing here changes the folder, and nothing needs the data set's files. What a user can mend (no run, one that has not
ended yet, a damaged file) is an InputError in one line.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcpc.config.load import read_config
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.resume import candidates
from fastcpc.engine.loggers.run_log import METRIC_KEYS, METRICS_FILE
from fastcpc.engine.outputs.pred_probs import PRED_PROBS_FILE
from fastcpc.errors import InputError

GO_ON = "start the same fastcpc-train command again to go on"
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_PAIRS = ("labelled", "auc_gmm", "auc_cpc", "partition_precision", "partition_recall")  # of network 1 and 2
_SUMMARY = ("best_top1", "last10_top1", "final_top1", "seconds")


@dataclass(frozen=True)
class RunLabels:
    """labels.npz: the labels that a run trains on; row i is the same sample as in its other files.

    given_N: (N,) int64 in 0..K-1. trusted_N: the same, -1 where a sample has none; None where no sample has one.
    source_index_N: (N,) int64, positions in the data set's official order. class_names: K texts; class_ids: K texts,
    what the classes are called in the data set's own files. nominal_rate: share of samples drawn for noise;
    actual_rate: share of labels that are wrong, of those that are known, or None.
    """

    given_N: Ints
    trusted_N: Ints | None
    source_index_N: Ints
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    noise_kind: str
    nominal_rate: float
    actual_rate: float | None
    seed: int


@dataclass(frozen=True)
class Run:
    """A run's folder. metrics: the objects of metrics.jsonl, one an epoch. summary: None until the run is finished."""

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

    @property
    def checkpoints(self) -> list[Path]:
        """Folders of the checkpoints, newest first, whole or not (``engine.checkpoint.named`` picks a whole one)."""
        return candidates(self.path)


def read_run(path: Path) -> Run:
    """Read a run, finished or not. InputError: no run, one that never began to train, damaged files."""
    config = read_config(path)
    labels = _read_labels(path / "labels.npz")
    return Run(path, config, labels, _read_metrics(path / METRICS_FILE), _read_summary(path / "summary.json"))


def read_pred_probs(run: Run) -> NDArray[np.float32]:
    """Both networks' mean softmax, float32 (N, K), read-only and read from the disk as it is used.

    InputError where the run is not finished, or where the file is damaged.
    """
    path = run.path / PRED_PROBS_FILE
    if not path.is_file():
        raise InputError(
            f"{run.path} has no {PRED_PROBS_FILE}: it is written when the run ends, and {progress_of(run)}; {GO_ON}"
        )
    try:
        probs_NK = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged_file(path, " ".join(str(error).split())[:120]) from None
    expected = (run.num_samples, len(run.class_names))
    if not isinstance(probs_NK, np.ndarray) or probs_NK.dtype != np.float32 or probs_NK.shape != expected:
        raise damaged_file(path, f"does not hold float32 {expected}, a row a sample and a column a class")
    return probs_NK


def progress_of(run: Run) -> str:
    """How far a run has come, in words."""
    done, epochs = len(run.metrics), run.config.train.epochs
    return f"this one has done {done} of {epochs} epochs"


def labels_in_range(labels_N: Ints, low: int, num_classes: int) -> bool:
    """Whether every label lies in low..num_classes-1."""
    return bool(labels_N.min() >= low and labels_N.max() < num_classes)


def damaged_file(path: Path, why: str) -> InputError:
    """The fault of a file that the end of a run writes anew from its last checkpoint."""
    return InputError(
        f"{path}: {why}; delete summary.json there and start the same fastcpc-train command again, which writes the "
        "file anew from the last checkpoint"
    )


def _read_labels(path: Path) -> RunLabels:
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}: this run ended before it began to train; start it again")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        labels = _labels_of(arrays)
    # a damaged archive ends in any of zipfile's, zlib's and numpy's errors
    except Exception as error:
        raise damaged_file(path, " ".join(f"{type(error).__name__}: {error}".split())[:120]) from None
    num_classes = len(labels.class_names)
    for name, labels_N, low in (("given", labels.given_N, 0), ("trusted", labels.trusted_N, -1)):
        if labels_N is not None and (
            len(labels_N) != len(labels.source_index_N)
            or not len(labels_N)
            or not labels_in_range(labels_N, low, num_classes)
        ):
            raise damaged_file(path, f"{name} does not hold a label of {num_classes} classes for each sample")
    return labels


def _labels_of(arrays: Mapping[str, NDArray[Any]]) -> RunLabels:
    rate = float(arrays["actual_rate"])
    known = arrays.get("trusted", arrays.get("partly_trusted"))
    names = tuple(str(name) for name in arrays["class_names"].tolist())
    return RunLabels(
        given_N=arrays["given"].astype(np.int64),
        trusted_N=None if known is None else known.astype(np.int64),
        source_index_N=arrays["source_index"].astype(np.int64),
        class_names=names,
        class_ids=tuple(str(name) for name in arrays["class_ids"].tolist()) if "class_ids" in arrays else names,
        noise_kind=str(arrays["noise_kind"]),
        nominal_rate=float(arrays["nominal_rate"]),
        actual_rate=None if np.isnan(rate) else rate,
        seed=int(arrays["seed"]),
    )


def _read_metrics(path: Path) -> tuple[dict[str, Any], ...]:
    """The whole lines; one that a kill, or a run that is writing it just now, left half-written at the end is none."""
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
            if not isinstance(record, dict) or not isinstance(record["epoch"], int):
                raise ValueError
            if not all(_fits(key, record.get(key)) for key in METRIC_KEYS):
                raise ValueError
        except (ValueError, KeyError):
            raise InputError(
                f"{path}: line {number} is no object of an epoch; the file is damaged: delete that line and what "
                "follows it, to see what comes before"
            ) from None
        records.append(record)
    return tuple(records)


def _fits(key: str, value: Any) -> bool:
    """Whether a value of metrics.jsonl is of the kind that its key has; null says that nothing is known."""
    if key == "phase":
        return value is None or isinstance(value, str)
    if key == "seconds":
        return value is None or (isinstance(value, dict) and all(_is_number(item) for item in value.values()))
    if key in _PAIRS:
        return value is None or (isinstance(value, list) and all(_is_number(item) for item in value))
    return _is_number(value)


def _is_whole(summary: dict[str, Any]) -> bool:
    return summary.get("finished") is not True or all(
        summary.get(key) is not None and _is_number(summary[key]) for key in _SUMMARY
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _read_summary(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_bytes())
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict) or not _is_whole(summary):
        raise InputError(f"{path}: is damaged; delete it and start the same fastcpc-train command again")
    return summary if summary.get("finished") is True else None
