"""samples.parquet: which samples a run began with, so that later commands notice another data set.

One row per sample: part, path, given label, use. The file's metadata has the classes and the digest. After
``--accept-changed-data`` the earlier record stays as samples_XXXXXXXX.parquet, because earlier checkpoints name its
digest.
"""

import hashlib
import json
import logging
import os
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.atomic_io import replace_file
from fastcpc.config.schema import Config, NoiseConfig
from fastcpc.config.sources import path_text
from fastcpc.data.dataset import Dataset
from fastcpc.data.identity import TRAIN, DataIdentity, Part, class_text, compare, identify
from fastcpc.data.labels.noise import Labels
from fastcpc.engine.outputs.labels_file import LABELS_FILE, read_labels
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")

DATA_FILE = "samples.parquet"
META = b"fastcpc"
VERSION = 1
COLUMNS = ("part", "path", "given_label", "use")


def identity_of(config: Config, dataset: Dataset, labels: Labels) -> DataIdentity:
    """The identity of a data set as ``launch.load_data`` returns it."""
    label_file = _label_file_digest(config.noise)
    return identify(dataset, labels.given, config.data.root, label_file, labels.confirmed)


def to_bytes(identity: DataIdentity) -> bytes:
    """The content of samples.parquet."""
    stored = dict(identity.parts)
    same = {}  # a part with two names is stored once
    for name, part in identity.parts.items():
        first = next(other for other, known in identity.parts.items() if known is part)
        if first != name:
            same[name] = first
            del stored[name]
    sizes = [len(part.names) for part in stored.values()]
    columns = [
        pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(sizes), dtype=np.int8), sizes), list(stored)),
        pa.array([name for part in stored.values() for name in part.names], pa.string()),
        pa.array(np.concatenate([part.labels_N for part in stored.values()])),
        pa.array(np.concatenate([part.use_N for part in stored.values()])),
    ]
    about = {
        "version": VERSION,
        "data": identity.data,
        "class_ids": identity.class_ids,
        "class_names": identity.class_names,
        "shape": identity.shape,
        "parts": {name: len(part.names) for name, part in stored.items()},
        "same": same,
        "held_out": identity.held_out,
        "label_file": identity.label_file,
        "values": identity.values,
        **({"confirmed": identity.confirmed} if identity.confirmed else {}),
        "digest": identity.digest,
    }
    table = pa.table(dict(zip(COLUMNS, columns, strict=True))).replace_schema_metadata({META: json.dumps(about)})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", use_dictionary=["part"], column_encoding={"path": "DELTA_BYTE_ARRAY"}
    )
    return bytes(sink.getvalue().to_pybytes())


def from_bytes(content: bytes, where: Path) -> DataIdentity:
    """The identity in a record. InputError names the file where it is damaged."""
    try:
        table = pq.read_table(pa.BufferReader(content), columns=list(COLUMNS))
        about = json.loads((table.schema.metadata or {})[META])
        identity = _identity(table, about)
    # a damaged file raises any of the errors of Arrow, JSON and dict
    except Exception as error:
        raise _damaged(where, f"{type(error).__name__}: {error}") from None
    if identity.digest != about["digest"]:
        raise _damaged(where, "its content does not match its digest")
    return identity


def _identity(table: pa.Table, about: dict[str, Any]) -> DataIdentity:
    if about["version"] != VERSION:
        raise ValueError(f"version {about['version']}")
    parts, begin = {}, 0
    for name, size in about["parts"].items():
        own = table.slice(begin, size)
        begin += size
        labels, use = own["given_label"].to_numpy(), own["use"].to_numpy()
        parts[name] = Part(tuple(own["path"].to_pylist()), labels.astype(np.int64), use.astype(np.int8))
    parts |= {name: parts[first] for name, first in about["same"].items()}
    return DataIdentity(
        data=about["data"],
        class_ids=tuple(about["class_ids"]),
        class_names=tuple(about["class_names"]),
        shape=tuple(about["shape"]),
        parts=parts,
        held_out=about["held_out"],
        label_file=about["label_file"],
        values=about.get("values", ""),
        confirmed=about.get("confirmed", ""),
    )


def write_record(folder: Path, identity: DataIdentity) -> None:
    """Put the record into a run's folder; an earlier one of another data set stays under the name of its digest."""
    target, before = folder / DATA_FILE, stored_digest(folder / DATA_FILE)
    if before == identity.digest:
        return
    content = to_bytes(identity)
    if before:
        os.replace(target, folder / f"samples_{before[:8]}.parquet")
    replace_file(target, content)


def stored_digest(path: Path) -> str:
    """The digest that a record has in its metadata; empty where there is no record that can be read."""
    try:
        return str(json.loads((pq.read_schema(path).metadata or {})[META])["digest"])
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return ""


def read_record(folder: Path) -> DataIdentity | None:
    """The record of a run; None where an earlier version trained it. InputError where the record is damaged."""
    path = folder / DATA_FILE
    if not path.exists():
        return None
    try:
        return from_bytes(path.read_bytes(), path)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None


def find_record(folder: Path, digest: str) -> bytes | None:
    """The content of the record with this digest, of the present or an earlier data set of a run; None without one."""
    for path in (folder / DATA_FILE, folder / f"samples_{digest[:8]}.parquet"):
        if digest and stored_digest(path) == digest:
            return path.read_bytes()
    return None


def held_out_of(record: DataIdentity | None) -> Set[str] | None:
    """The images that a run holds out for the accuracy, where they were drawn from the training images; else None."""
    return frozenset(record.parts["test"].names) if record is not None and record.held_out else None


def require_same(run: Path, config: Config, now: DataIdentity, parts: Set[str] | None = None) -> None:
    """InputError where the data set is not the one of the run; parts: the names of the parts to compare; None: all.

    A run of an earlier version has no record. One line says so, and what labels.npz has is compared.
    """
    then = read_record(run)
    if then is None:
        logger.warning("%s", not_checked(run))
        check_old_labels(run, config, now, train=parts is None or TRAIN in parts)
        return
    found = compare(then, now, parts)
    if found is not None:
        raise InputError(
            f"{data_key(config)}: not the data set of {run} ({found.text}); restore the data set of the run"
        )


def check_old_labels(run: Path, config: Config, now: DataIdentity, *, train: bool = True) -> None:
    """InputError where classes or given labels are not those in labels.npz, for a run without a record.

    train: whether the labels count. A run without labels.npz is not checked.
    """
    try:
        labels = read_labels(run / LABELS_FILE)
    except ValueError:
        return
    part = now.parts[TRAIN]
    given_N = part.labels_N[: part.num_used]
    text = ""
    if labels.class_ids != now.class_ids:
        text = class_text(replace(now, class_ids=labels.class_ids), now)
    elif train and len(given_N) != len(labels.given_N):
        text = f"train: {len(labels.given_N):,} images then, {len(given_N):,} now"
    elif train and (given_N != labels.given_N).any():
        row = int(np.flatnonzero(given_N != labels.given_N)[0])
        text = f"train: other given labels, first {path_text(part.names[row])}"
    if text:
        raise InputError(f"{data_key(config)}: not the data set of {run} ({text}); restore the data set of the run")


def not_checked(run: Path) -> str:
    """The note on a run without a record."""
    return f"{run} has no samples.parquet (an earlier version trained it): the data set cannot be compared with it"


def data_key(config: Config) -> str:
    """The setting that says where the data set is, for the begin of a message."""
    return f"data.root={config.data.root}" if config.data.root else f"data.name={config.data.name}"


def _label_file_digest(noise: NoiseConfig) -> str:
    if noise.kind != "file":
        return ""
    return hashlib.sha256(Path(noise.file).expanduser().read_bytes()).hexdigest()


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: is damaged ({' '.join(why.split())[:120]}); delete it, and the data set is not compared any more"
    )
