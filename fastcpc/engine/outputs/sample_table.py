"""clean_probabilities.parquet: what a cleaning found for each training sample, and its only list of columns.

A run writes it after each cleaning of all samples; reports and fastcpc-clean read it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from fastcpc.arrays import Bools, Floats, Ints
from fastcpc.atomic_io import replace_file
from fastcpc.data.dataset import AnySplit
from fastcpc.data.labels.noise import Labels
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.scoring import SampleScores

CLEANING_FILE = "clean_probabilities.parquet"
COLUMN_CLEANERS = ("gmm", "cpc")  # every file has columns of these; null where the run does not use the cleaner

# field of SampleTable, column, type; the columns of cleaners come behind predicted_label
_FIRST = (
    ("index_N", "index", pa.int64()),
    ("paths", "path", pa.string()),
    ("given_N", "given_label", pa.int64()),
    ("predicted_N", "predicted_label", pa.int64()),
)
_LAST = (
    ("clean_prob_N", "clean_probability", pa.float64()),
    ("p_given_N", "p_given", pa.float64()),
    ("p_predicted_N", "p_predicted", pa.float64()),
    ("is_clean_N", "is_clean", pa.bool_()),
)
_TRUE = "true_label"
_CLEANER_COLUMN = re.compile(r"q_(\w+)_[12]")


@dataclass(frozen=True)
class SampleTable:
    """Row i is training sample i of the run, in the data set's order.

    index_N: position in the data set's official order. paths: relative to data.root, or generated names where the data
    set has no files. given_N, predicted_N: class ids. q_N2: cleaner's name -> clean probability (N, 2) by network 1 and
    2, in the order of the columns; only cleaners in use. clean_prob_N: mean of both networks by the active cleaner, in
    [0, 1]; is_clean_N: whether it exceeds cleaner.tau. p_given_N, p_predicted_N: mean softmax of both networks at those
    labels. true_N: true labels, -1 where one is unknown; None where all are.
    """

    index_N: Ints
    paths: tuple[str, ...]
    given_N: Ints
    predicted_N: Ints
    q_N2: Mapping[str, Floats]
    clean_prob_N: Floats
    p_given_N: Floats
    p_predicted_N: Floats
    is_clean_N: Bools
    true_N: Ints | None = None

    def __len__(self) -> int:
        return len(self.index_N)

    @classmethod
    def of_cleaning(
        cls, train: AnySplit, labels: Labels, pair: SampleScores, cleaning: Cleaning | None, tau: float
    ) -> "SampleTable":
        """The table of a cleaning.

        A run without cleaner (``cleaner.kind=none``) has no clean probability: the softmax of the given label takes
        its place. Labels that data.corrections confirms have clean probability 1.
        """
        p_given_N = host_array(pair.prob_given_N)
        clean_N: Floats = p_given_N
        if cleaning is not None:
            clean_N = np.mean([host_array(prob_N) for prob_N in cleaning.clean_prob_of_network], axis=0)
        is_clean_N = clean_N > tau
        if labels.confirmed is not None:
            clean_N = np.where(labels.confirmed, np.float32(1), clean_N)
            is_clean_N = is_clean_N | labels.confirmed
        probs = cleaning.clean_probs if cleaning is not None else {}
        return cls(
            index_N=train.source_index,
            paths=tuple(train.names),
            given_N=labels.given,
            predicted_N=pair.predicted_N.cpu().numpy(),
            q_N2={name: np.stack([host_array(q_N) for q_N in both], axis=1) for name, both in probs.items()},
            clean_prob_N=clean_N,
            p_given_N=p_given_N,
            p_predicted_N=host_array(pair.prob_predicted_N),
            is_clean_N=is_clean_N,
            true_N=labels.trusted,
        )

    def suspected(self, threshold: float | None = None) -> Bools:
        """Which labels are suspected: those predicted noisy for which both networks predict another class.

        threshold: highest clean probability that is predicted noisy; None: the run's own decision, by cleaner.tau.
        """
        clean_N = self.is_clean_N if threshold is None else self.clean_prob_N > threshold
        return np.asarray(~clean_N & (self.predicted_N != self.given_N))

    def write(self, path: Path) -> None:
        """Write the file. NaN becomes null. RunError when it cannot be written."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.to_arrow(), sink)
        replace_file(path, sink.getvalue().to_pybytes())

    @classmethod
    def read(cls, path: Path) -> "SampleTable":
        """Read the file. ValueError in one line where it is damaged."""
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            why = str(error).splitlines()[0].removeprefix(f"Could not open Parquet input source '{path}': ")
            raise ValueError(f"not a Parquet file that can be read ({why[:120]})") from None
        return cls.from_arrow(table)

    def to_arrow(self) -> pa.Table:
        """The table as Arrow's. ValueError where columns differ in length."""
        unused = {name: None for name in COLUMN_CLEANERS if name not in self.q_N2}
        columns: list[tuple[str, pa.DataType, Any]] = [
            (name, kind, getattr(self, field)) for field, name, kind in _FIRST
        ]
        for cleaner in (*COLUMN_CLEANERS, *(name for name in self.q_N2 if name not in COLUMN_CLEANERS)):
            values = {cleaner: None} if cleaner in unused else {cleaner: self.q_N2[cleaner]}
            columns += [(name, pa.float64(), values_N) for name, values_N in cleaner_columns(values)]
        columns += [(name, kind, getattr(self, field)) for field, name, kind in _LAST]
        if self.true_N is not None:
            columns.append((_TRUE, pa.int64(), self.true_N))
        arrays = []
        for name, kind, values in columns:
            is_null = values is None
            array = pa.nulls(len(self), kind) if is_null else pa.array(values, type=kind, from_pandas=True)
            if len(array) != len(self):
                raise ValueError(f"column {name} has {len(array)} rows, index has {len(self)}")
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=pa.schema([(name, kind) for name, kind, _ in columns]))

    @classmethod
    def from_arrow(cls, table: pa.Table) -> "SampleTable":
        """The table that ``to_arrow`` gave. ValueError in one line where columns are missing or hold something else."""
        plain = (*_FIRST, *_LAST)
        cleaners = dict.fromkeys(match[1] for name in table.column_names if (match := _CLEANER_COLUMN.fullmatch(name)))
        needed = [name for _, name, _ in plain] + [name for name, _ in cleaner_columns(cleaners)]
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        fields: dict[str, Any] = {field: _values(table, name, kind) for field, name, kind in plain}
        fields["q_N2"] = {}
        for cleaner in cleaners:
            names = [name for name, _ in cleaner_columns({cleaner: None})]
            if any(table[name].null_count < len(table) for name in names):
                fields["q_N2"][cleaner] = np.stack([_values(table, name, pa.float64()) for name in names], axis=1)
        if _TRUE in table.column_names:
            fields["true_N"] = _values(table, _TRUE, pa.int64())
        return cls(**fields)


def cleaner_columns(q_N2: Mapping[str, Floats | None]) -> Iterator[tuple[str, Floats | None]]:
    """Names and values (N,) of the columns of each cleaner, network 1 before network 2."""
    for cleaner, values_N2 in q_N2.items():
        for i in (0, 1):
            yield f"q_{cleaner}_{i + 1}", None if values_N2 is None else values_N2[:, i]


def _values(table: pa.Table, name: str, kind: pa.DataType) -> Any:
    column = table[name]
    if kind == pa.string():
        return tuple(str(text) for text in column.to_pylist())
    if column.null_count:
        raise ValueError(f"column {name} has empty rows")
    try:
        return column.to_numpy().astype(kind.to_pandas_dtype())
    except (ValueError, TypeError):
        raise ValueError(f"column {name} holds {column.type}") from None


def host_array(values: Tensor) -> Floats:
    """A tensor on any device as float32 in main memory."""
    return values.float().cpu().numpy()
