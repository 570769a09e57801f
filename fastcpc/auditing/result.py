"""AuditResult: what an audit found, per sample and overall, and a classifier that learned from the cleaned labels."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcpc.arrays import Bools, Floats, Ints
from fastcpc.atomic_io import replace_file
from fastcpc.auditing.checks import check_embeddings
from fastcpc.auditing.heads import Heads
from fastcpc.auditing.rows import EmbeddingRows

CHUNK = 8192
COLUMNS = ("index", "given_label", "predicted_label", "is_label_issue", "label_score", "clean_probability")


@dataclass(frozen=True)
class AuditResult:
    """Arrays are NumPy, in the order of the samples; N samples, K classes.

    label_score: (N,) in [0, 1], 1 is good: the order of ``ranked()``. clean_probability: (N,) in [0, 1].
    predicted_label: (N,) int64, the suggestion. is_label_issue: (N,) bool. pred_probs: (N, K) float32, out of sample.
    noise_rate: estimated share of wrong labels; noise_interval: about 90 %. confusion_matrix: (K, K), row k: how often
    true class k gets each given label. class_count: (K,) given labels; class_noise_rate: (K,) share of them that is
    wrong; class_noise_interval: (K, 2). has_evidence: False: the labels may all be correct. true_metrics: figures
    against ``true_labels``, empty without them.
    """

    label_score: Floats
    clean_probability: Floats
    predicted_label: Ints
    is_label_issue: Bools
    pred_probs: NDArray[np.float32]
    given_label: Ints
    noise_rate: float
    noise_interval: tuple[float, float]
    confusion_matrix: Floats
    class_count: Ints
    class_noise_rate: Floats
    class_noise_interval: Floats
    has_evidence: bool
    seconds: float
    true_metrics: dict[str, float]
    heads: Heads = field(repr=False)
    rows: EmbeddingRows = field(repr=False)

    @property
    def evidence(self) -> str:
        """The verdict in one line."""
        low, high = self.noise_interval
        if not self.has_evidence:
            return f"no evidence of wrong labels (at most {high:.1%} may be wrong)"
        return f"about {self.noise_rate:.1%} of the labels are wrong ({low:.1%} to {high:.1%})"

    def ranked(self) -> Ints:
        """Indices of all samples, worst label first."""
        return np.argsort(self.label_score, kind="stable")

    def predict(self, embeddings: Any) -> Ints:
        """Classes (M,) int64 of new embeddings (M, D), as they are (not standardised)."""
        return np.asarray(self.predict_proba(embeddings).argmax(1), np.int64)

    def predict_proba(self, embeddings: Any) -> NDArray[np.float32]:
        """Probabilities (M, K) float32 of new embeddings (M, D). ValueError for another shape, NaN or inf."""
        values = check_embeddings(embeddings, min_samples=1)
        if values.shape[1] != self.rows.dim:
            raise ValueError(f"embeddings: {values.shape[1]} dimensions; the audited ones have {self.rows.dim}")
        parts = []
        for start in range(0, len(values), CHUNK):
            part = values[start : start + CHUNK]
            if not isinstance(part, torch.Tensor):
                part = torch.from_numpy(np.array(part, dtype=np.float32, order="C"))
            if not bool(part.isfinite().all()):
                row = start + int((~part.isfinite().all(1)).nonzero()[0])
                raise ValueError(f"embeddings: NaN or inf in row {row}; remove the row or embed it again")
            parts.append(self.heads.predict_proba(self.rows.standardise(part.float())).numpy())
        return np.concatenate(parts)

    def to_csv(self, path: str | Path) -> None:
        """Write all samples, worst first, with the columns ``COLUMNS``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for i in self.ranked():
            numbers = (f"{self.label_score[i]:.6g}", f"{self.clean_probability[i]:.6g}")
            classes = (int(self.given_label[i]), int(self.predicted_label[i]), int(self.is_label_issue[i]))
            writer.writerow((int(i), *classes, *numbers))
        replace_file(Path(path), text.getvalue().encode())
