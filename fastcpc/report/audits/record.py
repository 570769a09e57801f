"""audit.npz: what an audit estimates beyond the columns per sample. Written with the run folder, read by reports.

Everything is estimated from out-of-sample probabilities and given labels; true labels are never used.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcpc.arrays import Floats, Ints
from fastcpc.atomic_io import replace_file
from fastcpc.errors import InputError

AUDIT_FILE = "audit.npz"
NORMAL_90 = 1.645  # half the width of a normal distribution's 90 % interval, in standard deviations


@dataclass(frozen=True)
class AuditRecord:
    """noise_rate: estimated share of wrong labels, in [0, 1]; noise_interval: (2,) low and high, 90 %.

    class_rate_K, class_interval_K2: the same among the labels of each class. confusion_KK: row k: how often a sample
    of true class k gets each given label, rows sum to 1. has_evidence: whether the audit finds wrong labels at all.
    """

    noise_rate: float
    noise_interval: Floats
    class_rate_K: Floats
    class_interval_K2: Floats
    confusion_KK: Floats
    has_evidence: bool

    def worst_classes(self, most: int) -> Ints:
        """The classes with the highest estimates, worst first."""
        return np.argsort(-self.class_rate_K, kind="stable")[:most]

    def write(self, path: Path) -> None:
        """Write the file. RunError when it cannot be written."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            noise_rate=np.float64(self.noise_rate),
            noise_interval=self.noise_interval,
            class_rate_K=self.class_rate_K,
            class_interval_K2=self.class_interval_K2,
            confusion_KK=self.confusion_KK,
            has_evidence=np.bool_(self.has_evidence),
        )
        replace_file(path, buffer.getvalue())


def estimate_record(
    given_N: Ints,
    clean_prob_N: Floats,
    predicted_N: Ints,
    noise_rate: float,
    noise_interval: Sequence[float],
    confusion_KK: NDArray[np.floating] | None,
    num_classes: int,
) -> AuditRecord:
    """The record of an audit. given_N, predicted_N: (N,) class ids; clean_prob_N: (N,) in [0, 1].

    A class's rate is the mean of 1 - clean probability over its labels. Its interval adds the spread of that sum of
    independent labels to the relative width of the overall interval. confusion_KK: as the audit estimates it; None:
    from the predicted classes, each given label weighted by its probability to be wrong.
    """
    wrong_N = 1.0 - np.asarray(clean_prob_N, np.float64)
    count_K = np.bincount(given_N, minlength=num_classes)
    sum_K = np.bincount(given_N, wrong_N, num_classes)
    variance_K = np.bincount(given_N, wrong_N * (1 - wrong_N), num_classes)
    low, high = noise_interval
    relative = (high - low) / 2 / noise_rate if noise_rate > 0 else 0.0
    spread_K = np.sqrt((NORMAL_90**2) * variance_K + (relative * sum_K) ** 2)
    bounds_K2 = np.stack([sum_K - spread_K, sum_K + spread_K], axis=1) / np.maximum(count_K, 1)[:, None]
    if confusion_KK is None:
        confusion_KK = _confusion(given_N, wrong_N, predicted_N, num_classes)
    return AuditRecord(
        noise_rate=float(noise_rate),
        noise_interval=np.array([low, high], np.float64),
        class_rate_K=sum_K / np.maximum(count_K, 1),
        class_interval_K2=np.clip(bounds_K2, 0.0, 1.0),
        confusion_KK=np.asarray(confusion_KK, np.float64),
        has_evidence=low > 0,
    )


def _confusion(given_N: Ints, wrong_N: Floats, predicted_N: Ints, num_classes: int) -> Floats:
    """Rows: predicted class; a label that differs counts by its probability to be wrong, the rest stays."""
    differs_N = given_N != predicted_N
    moved = np.where(differs_N, wrong_N, 0.0)
    cells = np.bincount(predicted_N * num_classes + given_N, moved, num_classes**2)
    cells += np.bincount(given_N * (num_classes + 1), 1.0 - moved, num_classes**2)
    counts_KK = cells.reshape(num_classes, num_classes)
    return np.asarray(counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1e-12))


def read_audit(folder: Path, num_classes: int) -> AuditRecord | None:
    """The record in a run folder; None where the run is no audit. InputError where the file is damaged."""
    path = folder / AUDIT_FILE
    if not path.exists():
        return None
    shapes = {
        "noise_rate": (),
        "noise_interval": (2,),
        "class_rate_K": (num_classes,),
        "class_interval_K2": (num_classes, 2),
        "confusion_KK": (num_classes, num_classes),
        "has_evidence": (),
    }
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in shapes}
        if any(arrays[name].shape != shape or arrays[name].dtype.kind not in "fb" for name, shape in shapes.items()):
            raise ValueError("its arrays have other shapes")
    # a damaged archive raises any of the errors of zipfile, zlib and numpy
    except Exception as error:
        why = " ".join(f"{error or type(error).__name__}".split())[:120]
        raise InputError(f"{path}: is damaged ({why}); repeat the fastcpc-audit command in a new folder") from None
    rate, evidence = float(arrays.pop("noise_rate")), bool(arrays.pop("has_evidence"))
    return AuditRecord(noise_rate=rate, has_evidence=evidence, **arrays)
