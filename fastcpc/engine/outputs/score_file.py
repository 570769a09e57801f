"""Scores files: losses, mixtures and embeddings of a cleaning, per sample, from which reports draw their figures."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcpc.arrays import Floats
from fastcpc.atomic_io import replace_file
from fastcpc.cleaner.gmm import fit_mixtures
from fastcpc.cleaner.loss_history import min_max
from fastcpc.distributed import Shard
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.learner import Learner
from fastcpc.engine.scoring import ScoringResult
from fastcpc.errors import InputError
from fastcpc.kernels import MixtureFit

FIRST, LAST = "scores_first.npz", "scores_last.npz"  # of the first cleaning, after the warm-up, and of the latest
MOST_EMBEDDINGS = 5_000

Arrays = dict[str, NDArray[Any]]


@torch.no_grad()
def score_tensors(
    learners: Sequence[Learner],
    scoring: ScoringResult,
    cleaning: Cleaning | None,
    labels_N: Tensor,
    *,
    num_classes: int,
    epoch: int,
    has_prototypes: bool,
    shard: Shard | None = None,
) -> dict[str, Tensor]:
    """The arrays of a scores file, on the device; axis 0 of all but ``epoch`` and ``rows`` is network 1, network 2.

    epoch: 0-d int64, the epoch that follows the cleaning. loss: (2, N) float32 cross entropy with the given label.
    values: (2, N) float32 in [0, 1], the normalised (and averaged) losses that mixtures are fitted to; absent where
    losses are NaN or inf. agn_means, agn_variances, agn_weights: (2, 1, 2) float64, the mixture of all samples, the
    smaller mean first. awr_*: (2, K, 2), one for each given label. NaN where there is no fit. Both are there whichever
    of them the cleaner uses. q_NAME: (2, N) float32 clean probabilities by the cleaner of that name. With prototypes
    also rows: (M,) int64, M <= 5,000 samples spread evenly, embeddings: (2, M, d) float32 and prototypes: (2, K, d)
    float32.

    has_prototypes: whether a cleaner of the run trains them. shard: as ``cleaner.gmm.fit_mixtures``.
    """
    loss_2N = torch.stack([scores.loss_N for scores in scoring.networks])
    tensors = {"epoch": torch.tensor(epoch), "loss": loss_2N}
    if cleaning is not None or bool(loss_2N.isfinite().all()):  # a cleaning has checked its losses
        fits = cleaning.mixtures if cleaning is not None else [{}, {}]
        tensors |= _mixture_tensors(learners, loss_2N, labels_N, num_classes, fits, shard)
    probs = cleaning.clean_probs if cleaning is not None else {}
    tensors |= {f"q_{name}": torch.stack(both).float() for name, both in probs.items()}
    if has_prototypes and probs:
        tensors |= _embedding_tensors(learners, scoring)
    return tensors


def write_scores(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a scores file of tensors in main memory, which numpy.load reads with allow_pickle=False.

    RunError when it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: tensor.numpy() for name, tensor in tensors.items()})
    replace_file(path, buffer.getvalue())


def _mixture_tensors(
    learners: Sequence[Learner],
    loss_2N: Tensor,
    labels_N: Tensor,
    num_classes: int,
    fits: Sequence[Mapping[str, MixtureFit]],
    shard: Shard | None,
) -> dict[str, Tensor]:
    """Normalised losses and both kinds of mixtures; a kind that the cleaner has not fitted is fitted here."""
    parts: dict[str, list[Tensor]] = {"values": []}
    for learner, loss_N, fitted in zip(learners, loss_2N, fits, strict=True):
        # a cleaner without a mixture keeps no history of losses
        values_N = learner.history_LN.mean(0) if len(learner.history_LN) else min_max(loss_N)
        parts["values"].append(values_N.float())
        for name, groups_N, num_groups in (
            ("agn", torch.zeros_like(labels_N), 1),
            ("awr", labels_N, num_classes),
        ):
            fit = fitted.get(name) or fit_mixtures(values_N, groups_N, num_groups, shard)
            for part in ("means", "variances", "weights"):
                parts.setdefault(f"{name}_{part}", []).append(getattr(fit, part))
    return {name: torch.stack(both) for name, both in parts.items()}


def _embedding_tensors(learners: Sequence[Learner], scoring: ScoringResult) -> dict[str, Tensor]:
    num_samples = len(scoring.pair.loss_N)
    rows = np.linspace(0, num_samples - 1, min(num_samples, MOST_EMBEDDINGS)).astype(np.int64)
    rows_M = torch.from_numpy(rows)
    embeddings, prototypes = [], []
    for i, learner in enumerate(learners):
        embeddings.append(learner.eval_network.embed(scoring.features(i, rows_M)).float())
        prototypes.append(learner.eval_network.prototype_matrix().float())
    return {"rows": rows_M, "embeddings": torch.stack(embeddings), "prototypes": torch.stack(prototypes)}


@dataclass(frozen=True)
class LossMixture:
    """Two normal distributions of losses, the one with the smaller mean (clean) first. Each (2,) float64."""

    means: Floats
    variances: Floats
    weights: Floats

    def densities(self, values_M: Floats) -> Floats:
        """Both weighted densities at these values, (2, M)."""
        spread = np.sqrt(self.variances)[:, None]
        z = (values_M[None] - self.means[:, None]) / spread
        return np.asarray(self.weights[:, None] * np.exp(-0.5 * z * z) / (spread * np.sqrt(2 * np.pi)))


@dataclass(frozen=True)
class ScoreArrays:
    """A scores file as it is read; ``score_arrays`` describes the arrays."""

    arrays: dict[str, NDArray[Any]]

    @property
    def epoch(self) -> int:
        """The epoch that follows the cleaning."""
        return int(self.arrays["epoch"])

    @property
    def cleaners(self) -> list[str]:
        """Names of the cleaners that ran, in their order."""
        return [key.removeprefix("q_") for key in self.arrays if key.startswith("q_")]

    def values(self, network: int) -> Floats | None:
        """(N,) normalised losses of network 0 or 1; None where losses were NaN or inf."""
        return self.arrays["values"][network] if "values" in self.arrays else None

    def mixture(self, network: int, label: int | None = None) -> LossMixture | None:
        """The mixture of all samples, or of those with a given label; None where there is no fit."""
        name, place = ("agn", 0) if label is None else ("awr", label)
        if f"{name}_means" not in self.arrays:
            return None
        parts = [self.arrays[f"{name}_{part}"][network, place] for part in ("means", "variances", "weights")]
        return LossMixture(*parts) if all(np.isfinite(part).all() for part in parts) else None


def read_scores(path: Path, num_samples: int, num_classes: int) -> ScoreArrays | None:
    """Read a scores file; None where there is none (yet). InputError in one line where it is damaged."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        _check(arrays, num_samples, num_classes)
    # a damaged archive raises any of the errors of zipfile, zlib and numpy
    except Exception as error:
        why = " ".join(f"{error or type(error).__name__}".split())[:120]
        raise InputError(f"{path}: is damaged ({why}); delete it to have a report without its figures") from None
    return ScoreArrays(arrays)


def _check(arrays: Arrays, num_samples: int, num_classes: int) -> None:
    """ValueError or KeyError where an array is missing or has another shape."""
    shapes: dict[str, tuple[int, ...]] = {"epoch": (), "loss": (2, num_samples)}
    if "values" in arrays:
        shapes["values"] = (2, num_samples)
        for name, groups in (("agn", 1), ("awr", num_classes)):
            shapes |= {f"{name}_{part}": (2, groups, 2) for part in ("means", "variances", "weights")}
    shapes |= {name: (2, num_samples) for name in arrays if name.startswith("q_")}
    if "rows" in arrays:
        rows, dim = arrays["rows"], arrays["embeddings"].shape[-1]
        shapes |= {"embeddings": (2, len(rows), dim), "prototypes": (2, num_classes, dim)}
        if rows.ndim != 1 or not ((rows >= 0) & (rows < num_samples)).all():
            raise ValueError("rows: not samples of this run")
    for name, shape in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype.kind not in "fi":
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, expected numbers {shape}")
