"""What a run knows of its training labels, as files that other programs read."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.atomic_io import replace_file
from fastcpc.data.labels.noise import Labels

# The columns and their order; true_label is there only where trusted labels are known.
COLUMNS = pa.schema(
    [
        ("index", pa.int64()),
        ("path", pa.string()),
        ("given_label", pa.int64()),
        ("predicted_label", pa.int64()),
        ("q_gmm_1", pa.float64()),
        ("q_gmm_2", pa.float64()),
        ("q_cpc_1", pa.float64()),
        ("q_cpc_2", pa.float64()),
        ("clean_probability", pa.float64()),
        ("p_given", pa.float64()),
        ("p_predicted", pa.float64()),
        ("is_clean", pa.bool_()),
        ("true_label", pa.int64()),
    ]
)
_MAY_BE_UNKNOWN = ("q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2")


def write_labels(
    path: Path, labels: Labels, source_index: np.ndarray, class_names: Sequence[str], class_ids: Sequence[str] = ()
) -> None:
    """Write labels.npz, which numpy.load reads with allow_pickle=False.

    Arrays: given, trusted (only where all are known), partly_trusted (only where some are; -1 elsewhere), source_index
    (int64 (N,)); class_names (K,); class_ids (K,), what the classes are called in the data set's files; noise_kind,
    nominal_rate, actual_rate (NaN where not known), seed (0-d). RunError when it cannot be written.
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


def write_clean_probabilities(path: Path, columns: Mapping[str, Any]) -> None:
    """Write clean_probabilities.parquet: a row for each training sample, in data set order.

    columns: a sequence of N for each name of COLUMNS (true_label may be absent; None for a q_* column that the cleaner
    has not). NaN becomes null. ValueError on a missing or unknown column or on lengths that differ; RunError when the
    file cannot be written.
    """
    schema = COLUMNS if columns.get("true_label") is not None else COLUMNS.remove(len(COLUMNS) - 1)
    place = COLUMNS.get_field_index("clean_probability")
    for name in reversed([name for name in columns if name.startswith("q_") and name not in COLUMNS.names]):
        schema = schema.insert(place, pa.field(name, pa.float64()))
    unknown = set(columns) - {*COLUMNS.names, *schema.names}
    missing = [name for name in schema.names if columns.get(name) is None and name not in _MAY_BE_UNKNOWN]
    if unknown or missing:
        raise ValueError(f"columns unknown: {sorted(unknown)}, missing: {missing}")
    num_rows = len(columns["index"])
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        array = (
            pa.nulls(num_rows, field.type) if values is None else pa.array(values, type=field.type, from_pandas=True)
        )
        if len(array) != num_rows:
            raise ValueError(f"column {field.name} has {len(array)} rows, index has {num_rows}")
        arrays.append(array)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink)
    replace_file(path, sink.getvalue().to_pybytes())
