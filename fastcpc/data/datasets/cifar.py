"""Loads CIFAR-10 and CIFAR-100 from either published layout: binary records, or untrusted pickles."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.datasets.cifar_meta import CifarFacts, CifarLayout
from fastcpc.data.labels.safe_pickle import load_pickle, unwrap
from fastcpc.errors import InputError

# One file's content: pixels uint8 (N, 3, S, S), labels int64 (N,), coarse labels int64 (N,) or None.
Part = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def load_cifar(root: str, facts: CifarFacts) -> Dataset:
    """Load a CIFAR data set in its official order (training files one after another).

    root: the folder of the files, or its parent. facts: the published facts that the files must match.
    Raises InputError, one line with the file, for missing, truncated, foreign or damaged files and impossible labels.
    """
    folder, layout = _find(root, facts)
    read = _read_binary if layout.kind == "binary" else _read_pickle
    train_parts = [read(folder / name, facts.train_records, facts) for name in layout.train_files]
    test_parts = [read(folder / name, facts.test_records, facts) for name in layout.test_files]
    train = _join("train", train_parts)
    return Dataset(
        name=facts.name,
        class_names=facts.class_names or _read_class_names(folder / layout.meta, facts),
        train=train,
        tests={"test": _join("test", test_parts)},
        mean=facts.mean,
        std=facts.std,
        weak=WeakPolicy(flip=True, padding=4),
        superclass_of=_superclasses(train_parts, facts, folder),
        published_order=train.labels[: len(facts.first_labels)].tolist() == list(facts.first_labels),
    )


def _find(root: str, facts: CifarFacts) -> tuple[Path, CifarLayout]:
    """The folder and layout with all files. Else raises an InputError that names the closest match."""
    layouts = " or ".join(f"{layout.folder} ({', '.join(layout.files)})" for layout in facts.layouts)
    if not root:
        raise InputError(f"data.root is empty: name the folder that holds {facts.title}'s {layouts}")
    base = Path(root).expanduser()
    places = [(place, layout) for layout in facts.layouts for place in (base, base / layout.folder)]
    closest: tuple[int, Path, list[str]] | None = None
    for place, layout in places:
        missing = [name for name in layout.files if not (place / name).is_file()]
        if not missing:
            return place, layout
        found = len(layout.files) - len(missing)
        if found and (closest is None or found > closest[0]):
            closest = (found, place, missing)
    if closest is not None:
        raise InputError(f"{closest[1]}: {facts.title} is not whole here, missing: {', '.join(closest[2])}")
    if not base.is_dir():
        raise InputError(f"data.root={root}: no such folder; it must hold {facts.title}'s {layouts}")
    archives = sorted(path.name for path in base.glob("cifar-*.tar.gz"))
    hint = f"; unpack {archives[0]} first" if archives else ""
    sought = ", ".join(dict.fromkeys(str(place) for place, _ in places))
    raise InputError(f"data.root={root}: no {facts.title} here{hint}; expected {layouts}; sought in {sought}")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _read_binary(path: Path, num_records: int, facts: CifarFacts) -> Part:
    record_bytes = facts.label_bytes + facts.pixel_bytes
    content = _read_bytes(path)
    if len(content) != num_records * record_bytes:
        raise InputError(
            f"{path}: {len(content):,} bytes, expected {num_records * record_bytes:,} ({num_records:,} records of"
            f" {record_bytes:,}): the file is truncated, or not {facts.title}'s"
        )
    records = np.frombuffer(content, np.uint8).reshape(num_records, record_bytes)
    pixels = records[:, facts.label_bytes :].reshape(num_records, 3, facts.image_size, facts.image_size)
    labels = _checked(records[:, facts.label_bytes - 1], num_records, facts.num_classes, path, "label")
    if not facts.num_superclasses:
        return pixels, labels, None
    return pixels, labels, _checked(records[:, 0], num_records, facts.num_superclasses, path, "coarse label")


def _read_pickle(path: Path, num_records: int, facts: CifarFacts) -> Part:
    content = _load_dict(path)
    for key in filter(None, ("data", facts.label_key, facts.coarse_key)):
        if key not in content:
            raise InputError(f"{path}: no {key!r} in it; this is not a file of {facts.title}'s Python version")
    pixels = content["data"]
    expected = (num_records, facts.pixel_bytes)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != expected:
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise InputError(f"{path}: 'data' is {got}, expected uint8 {expected}")
    labels = _checked(content[facts.label_key], num_records, facts.num_classes, path, facts.label_key)
    coarse = None
    if facts.coarse_key:
        coarse = _checked(content[facts.coarse_key], num_records, facts.num_superclasses, path, facts.coarse_key)
    return pixels.reshape(num_records, 3, facts.image_size, facts.image_size), labels, coarse


def _load_dict(path: Path) -> dict[str, Any]:
    content = _read_bytes(path)
    try:
        value = load_pickle(content)
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: unwrap(item) for key, item in value.items()}
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: not a data file that is safe to read: {error}") from None
    raise InputError(f"{path}: holds {type(value).__name__}, expected a dict with named entries")


def _checked(values: Any, length: int, limit: int, path: Path, what: str) -> np.ndarray:
    """Labels as int64 (N,), each in 0..limit-1, or an InputError that names the first bad record."""
    whole = isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.ndim == 1
    if not whole and not (isinstance(values, list) and all(type(value) is int for value in values)):
        raise InputError(f"{path}: {what} is not a list of whole numbers")
    if len(values) != length:
        raise InputError(f"{path}: {len(values):,} entries in {what}, expected {length:,}")
    bad = next((row for row, value in enumerate(values) if not 0 <= value < limit), None)
    if bad is not None:
        raise InputError(f"{path}: {what} {values[bad]} of record {bad} is outside 0..{limit - 1}")
    return np.asarray(values, np.int64)


def _read_class_names(path: Path, facts: CifarFacts) -> tuple[str, ...]:
    if path.suffix == ".txt":
        names = _read_bytes(path).decode("latin1").split()
    else:
        names = _load_dict(path).get("fine_label_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: 'fine_label_names' is not a list of names")
    if len(names) != facts.num_classes or len(set(names)) != len(names):
        raise InputError(f"{path}: {len(set(names))} different class names, expected {facts.num_classes}")
    return tuple(names)


def _superclasses(parts: list[Part], facts: CifarFacts, folder: Path) -> tuple[int, ...]:
    """The coarse label of each class, from the training records. Empty where the data set has no superclasses."""
    if not facts.num_superclasses:
        return ()
    fine = np.concatenate([part[1] for part in parts])
    coarse = np.concatenate([part[2] for part in parts if part[2] is not None])
    table = np.full(facts.num_classes, -1, np.int64)
    table[fine] = coarse
    if (table[fine] != coarse).any():
        row = int(np.flatnonzero(table[fine] != coarse)[0])
        raise InputError(f"{folder}: class {fine[row]} occurs with coarse labels {coarse[row]} and {table[fine[row]]}")
    if (table < 0).any():
        raise InputError(f"{folder}: no training record of class {int(np.argmax(table < 0))}")
    return tuple(table.tolist())


def _join(prefix: str, parts: list[Part]) -> ArraySplit:
    pixels = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    names = tuple(f"{prefix}/{row:05d}" for row in range(len(labels)))
    return ArraySplit(torch.from_numpy(pixels), labels, np.arange(len(labels), dtype=np.int64), names)
