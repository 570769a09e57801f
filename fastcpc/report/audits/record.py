"""audit.npz: what an audit estimates beyond the columns per sample. Written with the run folder, read by reports.

Everything is estimated from out-of-sample probabilities and given labels; true labels are never used.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcpc.arrays import Floats, Ints
from fastcpc.atomic_io import replace_file
from fastcpc.auditing.result import AuditResult
from fastcpc.errors import InputError

AUDIT_FILE = "audit.npz"


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


def record_of(result: AuditResult) -> AuditRecord:
    """The record of an audit's result."""
    return AuditRecord(
        noise_rate=float(result.noise_rate),
        noise_interval=np.array(result.noise_interval, np.float64),
        class_rate_K=np.asarray(result.class_noise_rate, np.float64),
        class_interval_K2=np.asarray(result.class_noise_interval, np.float64),
        confusion_KK=np.asarray(result.confusion_matrix, np.float64),
        has_evidence=bool(result.has_evidence),
    )


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
