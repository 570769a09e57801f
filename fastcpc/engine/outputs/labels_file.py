"""labels.npz: the labels that a run trains on. Written once when a run starts, read by reports."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcpc.arrays import Ints
from fastcpc.atomic_io import replace_file
from fastcpc.data.labels.noise import Labels

LABELS_FILE = "labels.npz"


@dataclass(frozen=True)
class RunLabels:
    """The content of the file; row i is the same sample as in the run's other files.

    given_N: (N,) int64 in 0..K-1. trusted_N: true labels, -1 where one is unknown; None where all are.
    source_index_N: (N,) int64, positions in the data set's official order. class_names: K texts; class_ids: K texts,
    the names of the classes in the data set's own files. nominal_rate: share of samples drawn for noise; actual_rate:
    share of wrong labels among those with a true label, or None.
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


def write_labels(
    path: Path, labels: Labels, source_index: np.ndarray, class_names: Sequence[str], class_ids: Sequence[str] = ()
) -> None:
    """Write the file, which numpy.load reads with allow_pickle=False.

    Arrays int64 (N,): given, trusted, partly_trusted, source_index. The file has trusted only where all true labels are
    known. It has partly_trusted, with -1 for unknown, only where some are. Arrays (K,): class_names, class_ids.
    Arrays 0-d: noise_kind, nominal_rate, actual_rate (NaN where unknown), seed. RunError when it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {
        "given": labels.given,
        "source_index": np.asarray(source_index),
        "class_names": np.array(list(class_names), dtype=np.str_),
        "class_ids": np.array(list(class_ids or class_names), dtype=np.str_),
        "noise_kind": np.array(labels.kind, dtype=np.str_),
        "nominal_rate": np.array(labels.nominal_rate, dtype=np.float64),
        "actual_rate": np.array(np.nan if labels.actual_rate is None else labels.actual_rate, dtype=np.float64),
        "seed": np.array(labels.seed, dtype=np.int64),
    }
    if labels.trusted is not None:
        arrays["trusted"] = labels.trusted
    if labels.partly is not None:
        arrays["partly_trusted"] = labels.partly
    for name in ("trusted", "partly_trusted", "source_index"):
        if name in arrays and len(arrays[name]) != len(labels.given):
            raise ValueError(f"{name} has {len(arrays[name])} entries for {len(labels.given)} labels")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    replace_file(path, buffer.getvalue())


def read_labels(path: Path) -> RunLabels:
    """Read the file. ValueError in one line where it is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            labels = _labels_of({name: file[name] for name in file.files})
    # a damaged archive raises any of the errors of zipfile, zlib and numpy
    except Exception as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())[:120]) from None
    num_classes = len(labels.class_names)
    for name, labels_N, low in (("given", labels.given_N, 0), ("trusted", labels.trusted_N, -1)):
        if labels_N is not None and (
            len(labels_N) != len(labels.source_index_N)
            or not len(labels_N)
            or not labels_in_range(labels_N, low, num_classes)
        ):
            raise ValueError(f"{name} does not hold a label of {num_classes} classes for each sample")
    return labels


def labels_in_range(labels_N: Ints, low: int, num_classes: int) -> bool:
    """Whether every label is in low..num_classes-1."""
    return bool(labels_N.min() >= low and labels_N.max() < num_classes)


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
