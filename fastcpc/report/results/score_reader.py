"""The scores files of a run, read back: losses, mixtures and embeddings of its first and of its latest cleaning."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcpc.errors import InputError
from fastcpc.report.results.run import Run

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class FittedMixture:
    """Two normal distributions of losses, the cleaner one first. Each (2,) float64."""

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
    """A scores file; see ``engine.scores.score_arrays`` for the arrays."""

    arrays: dict[str, NDArray[Any]]

    @property
    def epoch(self) -> int:
        """The epoch before which this was measured."""
        return int(self.arrays["epoch"])

    def values(self, network: int) -> Floats | None:
        """(N,) normalised losses of network 0 or 1; None where the losses were no numbers."""
        return self.arrays["values"][network] if "values" in self.arrays else None

    def mixture(self, network: int, label: int | None = None) -> FittedMixture | None:
        """The mixture of all samples, or of those with a given label; None where there is no fit."""
        name, place = ("agn", 0) if label is None else ("awr", label)
        if f"{name}_means" not in self.arrays:
            return None
        parts = [self.arrays[f"{name}_{part}"][network, place] for part in ("means", "variances", "weights")]
        return FittedMixture(*parts) if all(np.isfinite(part).all() for part in parts) else None


def read_scores(run: Run, name: str) -> ScoreArrays | None:
    """A scores file of a run; None where it is not there (yet). InputError in one line where it is damaged."""
    path = run.path / name
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        _check(arrays, run)
    # a damaged archive ends in any of zipfile's, zlib's and numpy's errors
    except Exception as error:
        why = " ".join(f"{error or type(error).__name__}".split())[:120]
        raise InputError(f"{path}: is damaged ({why}); delete it to have a report without what it holds") from None
    return ScoreArrays(arrays)


def _check(arrays: dict[str, NDArray[Any]], run: Run) -> None:
    num_samples, num_classes = run.num_samples, len(run.class_names)
    shapes: dict[str, tuple[int, ...]] = {"epoch": (), "loss": (2, num_samples)}
    if "values" in arrays:
        shapes["values"] = (2, num_samples)
        for name, groups in (("agn", 1), ("awr", num_classes)):
            shapes |= {f"{name}_{part}": (2, groups, 2) for part in ("means", "variances", "weights")}
    for name in ("q_gmm", "q_cpc"):
        if name in arrays:
            shapes[name] = (2, num_samples)
    if "rows" in arrays:
        rows, dim = arrays["rows"], arrays["embeddings"].shape[-1]
        shapes |= {"embeddings": (2, len(rows), dim), "prototypes": (2, num_classes, dim)}
        if rows.ndim != 1 or not ((rows >= 0) & (rows < num_samples)).all():
            raise ValueError("rows: not samples of this run")
    for name, shape in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype.kind not in "fi":
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, expected numbers {shape}")
