"""A run's folder, read back: settings, metrics, labels, and what the last cleaning says of every training sample.

Nothing here changes the folder, and nothing needs the data set's files. What a user can mend (no run, no cleaning yet,
a damaged file) is an InputError in one line.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastcpc.config.load import load_config
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint_find import candidates
from fastcpc.engine.log import METRIC_KEYS, METRICS_FILE
from fastcpc.engine.pred_probs import PRED_PROBS_FILE
from fastcpc.engine.scores import LAST
from fastcpc.errors import InputError

CLEANING_FILE = "clean_probabilities.parquet"
GO_ON = "start the same fastcpc-train command again to go on"
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_PLAIN = ("index", "path", "given_label", "predicted_label", "clean_probability", "p_given", "p_predicted", "is_clean")
_PAIRS = ("labelled", "auc_gmm", "auc_cpc", "partition_precision", "partition_recall")  # of network 1 and 2
_SUMMARY = ("best_top1", "last10_top1", "final_top1", "seconds")
_CLEANERS = ("q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2")


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


@dataclass(frozen=True)
class Samples:
    """clean_probabilities.parquet: row i is training sample i of the run, in the data set's order.

    index_N: position in the data set's official order. paths: relative to data.root, or made-up names where the data
    set has no files. given_N, predicted_N: class ids; true_N: the same, or None where not known. clean_prob_N: of the
    cleaner that rules, mean of both networks, in [0, 1]; is_clean_N: whether it exceeds cleaner.tau. p_given_N,
    p_predicted_N: both networks' mean softmax at those labels. q_gmm_N2, q_cpc_N2: clean probability by mixture and by
    prototypes of network 1 and 2, None where the cleaner has none.
    """

    index_N: Ints
    paths: tuple[str, ...]
    given_N: Ints
    predicted_N: Ints
    clean_prob_N: Floats
    is_clean_N: Bools
    p_given_N: Floats
    p_predicted_N: Floats
    q_gmm_N2: Floats | None
    q_cpc_N2: Floats | None
    true_N: Ints | None

    def __len__(self) -> int:
        return len(self.index_N)


def read_config(path: Path) -> Config:
    """The config of a run's folder; InputError in one line where there is none."""
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give the folder of a run")
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path} is not a run's folder: it has no config.yaml")
    return load_config([path / "config.yaml"], [])


def read_run(path: Path) -> Run:
    """Read a run, finished or not. InputError: no run, one that never began to train, damaged files."""
    config = read_config(path)
    labels = _read_labels(path / "labels.npz")
    return Run(path, config, labels, _read_metrics(path / METRICS_FILE), _read_summary(path / "summary.json"))


def read_samples(run: Run) -> Samples:
    """What the run's last cleaning says of each sample.

    InputError where there has been none yet, or where the file is damaged or does not belong to the run's labels.
    """
    path = run.path / CLEANING_FILE
    if not path.is_file():
        raise InputError(
            f"{run.path} has no {CLEANING_FILE}: it is written by the first cleaning, at the end of the warm-up of "
            f"{run.config.train.warmup_epochs} epochs, and {_progress(run)}; {GO_ON}"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        why = str(error).splitlines()[0].removeprefix(f"Could not open Parquet input source '{path}': ")
        raise _damaged(path, f"not a Parquet file that can be read ({why[:120]})") from None
    missing = [name for name in (*_PLAIN, *_CLEANERS) if name not in table.column_names]
    if missing:
        raise _damaged(path, f"no column {', '.join(missing)}")
    samples = _samples(path, table, run.labels.trusted_N)
    _check_samples(path, samples, run)
    return samples


def samples_of(run: Run) -> tuple[Samples | None, str]:
    """The samples of a run, or why there are none: of a run that is finished that is a fault."""
    try:
        return read_samples(run), ""
    except InputError as error:
        if run.summary is not None or (run.path / LAST).exists():
            raise
        return None, str(error)


def read_pred_probs(run: Run) -> NDArray[np.float32]:
    """Both networks' mean softmax, float32 (N, K), read-only and read from the disk as it is used.

    InputError where the run is not finished, or where the file is damaged.
    """
    path = run.path / PRED_PROBS_FILE
    if not path.is_file():
        raise InputError(
            f"{run.path} has no {PRED_PROBS_FILE}: it is written when the run ends, and {_progress(run)}; {GO_ON}"
        )
    try:
        probs_NK = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, " ".join(str(error).split())[:120]) from None
    expected = (run.num_samples, len(run.class_names))
    if not isinstance(probs_NK, np.ndarray) or probs_NK.dtype != np.float32 or probs_NK.shape != expected:
        raise _damaged(path, f"does not hold float32 {expected}, a row a sample and a column a class")
    return probs_NK


def _samples(path: Path, table: pa.Table, true_N: Ints | None) -> Samples:
    def values(name: str, dtype: Any) -> NDArray[Any]:
        column = table[name]
        if column.null_count:
            raise _damaged(path, f"column {name} has empty rows")
        try:
            return np.asarray(column.to_numpy().astype(dtype))
        except (ValueError, TypeError):
            raise _damaged(path, f"column {name} holds {column.type}") from None

    def pair(cleaner: str) -> Floats | None:
        names = [f"{cleaner}_1", f"{cleaner}_2"]
        if all(table[name].null_count == len(table) for name in names):
            return None
        return np.stack([values(name, np.float64) for name in names], axis=1)

    return Samples(
        index_N=values("index", np.int64),
        paths=tuple(str(text) for text in table["path"].to_pylist()),
        given_N=values("given_label", np.int64),
        predicted_N=values("predicted_label", np.int64),
        clean_prob_N=values("clean_probability", np.float64),
        is_clean_N=values("is_clean", np.bool_),
        p_given_N=values("p_given", np.float64),
        p_predicted_N=values("p_predicted", np.float64),
        q_gmm_N2=pair("q_gmm"),
        q_cpc_N2=pair("q_cpc"),
        true_N=true_N,
    )


def _check_samples(path: Path, samples: Samples, run: Run) -> None:
    """The rows must be the run's own samples, with labels of its classes and probabilities that are some."""
    if not np.array_equal(samples.index_N, run.labels.source_index_N):
        raise _damaged(path, "its rows are not the samples of labels.npz")
    if not np.array_equal(samples.given_N, run.labels.given_N):
        raise _damaged(path, "its given labels are not those of labels.npz")
    if not _in_range(samples.predicted_N, 0, len(run.class_names)):
        raise _damaged(path, f"column predicted_label has labels outside 0..{len(run.class_names) - 1}")
    for name, values_N in (
        ("clean_probability", samples.clean_prob_N),
        ("p_given", samples.p_given_N),
        ("p_predicted", samples.p_predicted_N),
    ):
        if not ((values_N >= 0) & (values_N <= 1 + 1e-5)).all():
            raise _damaged(path, f"column {name} has values outside [0, 1]")


def _read_labels(path: Path) -> RunLabels:
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}: this run ended before it began to train; start it again")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        labels = _labels_of(arrays)
    # a damaged archive ends in any of zipfile's, zlib's and numpy's errors
    except Exception as error:
        raise _damaged(path, " ".join(f"{type(error).__name__}: {error}".split())[:120]) from None
    num_classes = len(labels.class_names)
    for name, labels_N, low in (("given", labels.given_N, 0), ("trusted", labels.trusted_N, -1)):
        if labels_N is not None and (
            len(labels_N) != len(labels.source_index_N)
            or not len(labels_N)
            or not _in_range(labels_N, low, num_classes)
        ):
            raise _damaged(path, f"{name} does not hold a label of {num_classes} classes for each sample")
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


def _progress(run: Run) -> str:
    done, epochs = len(run.metrics), run.config.train.epochs
    return f"this one has done {done} of {epochs} epochs"


def _in_range(labels_N: Ints, low: int, num_classes: int) -> bool:
    return bool(labels_N.min() >= low and labels_N.max() < num_classes)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: {why}; delete summary.json there and start the same fastcpc-train command again, which writes the "
        "file anew from the last checkpoint"
    )
