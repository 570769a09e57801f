"""What a run's last cleaning says of every training sample, read from its folder and held against its labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastcpc.engine.outputs.score_file import LAST
from fastcpc.errors import InputError
from fastcpc.report.results.run import (
    GO_ON,
    Bools,
    Floats,
    Ints,
    Run,
    damaged_file,
    labels_in_range,
    progress_of,
)

CLEANING_FILE = "clean_probabilities.parquet"

_PLAIN = ("index", "path", "given_label", "predicted_label", "clean_probability", "p_given", "p_predicted", "is_clean")
_CLEANERS = ("q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2")


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


def read_samples(run: Run) -> Samples:
    """What the run's last cleaning says of each sample.

    InputError where there has been none yet, or where the file is damaged or does not belong to the run's labels.
    """
    path = run.path / CLEANING_FILE
    if not path.is_file():
        raise InputError(
            f"{run.path} has no {CLEANING_FILE}: it is written by the first cleaning, at the end of the warm-up of "
            f"{run.config.train.warmup_epochs} epochs, and {progress_of(run)}; {GO_ON}"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        why = str(error).splitlines()[0].removeprefix(f"Could not open Parquet input source '{path}': ")
        raise damaged_file(path, f"not a Parquet file that can be read ({why[:120]})") from None
    missing = [name for name in (*_PLAIN, *_CLEANERS) if name not in table.column_names]
    if missing:
        raise damaged_file(path, f"no column {', '.join(missing)}")
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


def _samples(path: Path, table: pa.Table, true_N: Ints | None) -> Samples:
    def values(name: str, dtype: Any) -> NDArray[Any]:
        column = table[name]
        if column.null_count:
            raise damaged_file(path, f"column {name} has empty rows")
        try:
            return np.asarray(column.to_numpy().astype(dtype))
        except (ValueError, TypeError):
            raise damaged_file(path, f"column {name} holds {column.type}") from None

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
        raise damaged_file(path, "its rows are not the samples of labels.npz")
    if not np.array_equal(samples.given_N, run.labels.given_N):
        raise damaged_file(path, "its given labels are not those of labels.npz")
    if not labels_in_range(samples.predicted_N, 0, len(run.class_names)):
        raise damaged_file(path, f"column predicted_label has labels outside 0..{len(run.class_names) - 1}")
    for name, values_N in (
        ("clean_probability", samples.clean_prob_N),
        ("p_given", samples.p_given_N),
        ("p_predicted", samples.p_predicted_N),
    ):
        if not ((values_N >= 0) & (values_N <= 1 + 1e-5)).all():
            raise damaged_file(path, f"column {name} has values outside [0, 1]")
