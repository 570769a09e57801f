"""The identity of a data set: path and given label of every sample, classes, parts; and what differs between two.

A run keeps its identity (``engine/outputs/data_record.py``), and commands compare it with the data they read. Pixels
are not compared; embeddings are, by some rows. Paths are relative to data.root, so that the whole data set may move.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastcpc.arrays import Bools, Ints
from fastcpc.config.constraints import shown
from fastcpc.config.sources import path_text
from fastcpc.data.dataset import AnySplit, ArraySplit, Dataset, EmbeddingSplit
from fastcpc.data.paths import same_name

TRAIN = "train"
USED, BROKEN, UNUSED, REMOVED = 0, 1, 2, 3  # trained on; broken; outside data.subset; removed by data.corrections
SAMPLED_ROWS = 4096  # of a file of embeddings, evenly spaced, that count as its content
NEW = -1  # a sample that the earlier data set does not have
Uses = NDArray[np.int8]


@dataclass(frozen=True)
class Part:
    """The samples of one part in the order of the data set, those that are trained on first.

    names: N paths. labels_N: int64 (N,), given labels. use_N: int8 (N,), USED, BROKEN, UNUSED or REMOVED.
    """

    names: tuple[str, ...]
    labels_N: Ints
    use_N: Uses

    @property
    def num_used(self) -> int:
        """Samples that are trained or tested on."""
        return int((self.use_N == USED).sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, labels and uses."""
        digest = hashlib.sha256("\0".join(self.names).encode("utf-8", "surrogateescape"))
        digest.update(self.labels_N.astype("<i8").tobytes() + self.use_N.astype("<i1").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class DataIdentity:
    """What makes a data set the one that a run began with.

    shape: of an image in memory (C, H, W); empty for files. parts: "train" and the test sets by name. held_out:
    whether the test part is drawn from the training images. label_file: SHA-256 of noise.file, or empty. It explains
    a difference and is not one: the labels count. values: dimension and digest of embeddings; empty for images, and for
    runs of earlier versions. confirmed: digest of the names that data.corrections confirms; empty where there are none.
    """

    data: str
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    parts: Mapping[str, Part]
    held_out: bool = False
    label_file: str = ""
    values: str = ""
    confirmed: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that counts."""
        parts = sorted((name, part.digest) for name, part in self.parts.items())
        further = [self.values] if self.values or self.confirmed else []
        further += [self.confirmed] if self.confirmed else []
        head = json.dumps([self.data, self.class_ids, self.class_names, self.shape, parts, *further])
        return hashlib.sha256(head.encode("utf-8", "surrogateescape")).hexdigest()


def identify(
    dataset: Dataset, given_N: Ints, root: str = "", label_file: str = "", confirmed_N: Bools | None = None
) -> DataIdentity:
    """The identity of a loaded data set.

    given_N: the given labels of ``dataset.train``. root: data.root, which is taken off absolute paths. confirmed_N:
    which of them data.corrections confirms.
    """
    left = dataset.left_out
    names = (*dataset.train.names, *left.names)
    left_use = np.where(left.broken, BROKEN, np.where(left.removed, REMOVED, UNUSED)).astype(np.int8)
    use_N = np.concatenate([np.zeros(len(given_N), np.int8), left_use])
    parts = {TRAIN: Part(plain_names(root, names), np.concatenate([given_N, left.labels]), use_N)}
    known: dict[int, Part] = {}  # two names may mean one part
    for name, split in dataset.tests.items():
        made = Part(plain_names(root, split.names), split.labels, np.zeros(len(split), np.int8))
        parts[name] = known.setdefault(id(split), made)
    shape = tuple(dataset.train.pixels.shape[1:]) if isinstance(dataset.train, ArraySplit) else ()
    ids = dataset.class_ids or dataset.class_names
    values = _values_digest(dataset.train, *dataset.tests.values())
    confirmed = [] if confirmed_N is None else [parts[TRAIN].names[row] for row in np.flatnonzero(confirmed_N)]
    digest = hashlib.sha256("\0".join(confirmed).encode("utf-8", "surrogateescape")).hexdigest() if confirmed else ""
    held_out, classes = dataset.held_out, dataset.class_names
    return DataIdentity(dataset.name, ids, classes, shape, parts, held_out, label_file, values, digest)


def _values_digest(*splits: AnySplit) -> str:
    """DIMENSION:SHA-256 of the embeddings of the parts, of at most SAMPLED_ROWS rows per file; empty for images."""
    digest, seen, dim = hashlib.sha256(), set(), 0
    for split in splits:
        if isinstance(split, EmbeddingSplit) and id(split.array) not in seen:
            seen.add(id(split.array))
            num_rows, dim = split.array.shape
            rows = np.linspace(0, num_rows - 1, min(num_rows, SAMPLED_ROWS)).astype(np.int64)
            digest.update(repr(split.array.shape).encode() + split.array[rows].astype("<f4").tobytes())
    return f"{dim}:{digest.hexdigest()}" if seen else ""


def plain_names(root: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names as a run keeps them: in canonical form, absolute paths inside root relative to it."""
    base = os.path.abspath(os.path.expanduser(root)).rstrip("/") + "/" if root else ""
    return tuple(same_name(name).removeprefix(base) for name in names)


@dataclass(frozen=True)
class Difference:
    """How a data set differs from an earlier one. text: one line. classes: whether other classes are the reason."""

    text: str
    classes: bool = False


def compare(then: DataIdentity, now: DataIdentity, parts: Collection[str] | None = None) -> Difference | None:
    """The difference of two data sets, or None. parts: the names of those to compare; None: all."""
    if then.class_ids != now.class_ids or then.data != now.data or then.shape != now.shape:
        return Difference(class_text(then, now), classes=True)
    texts = [] if then.class_names == now.class_names else ["other class names"]
    if then.values and now.values and then.values != now.values:
        before, after = (identity.values.partition(":")[0] for identity in (then, now))
        if before != after:
            return Difference(f"embeddings of {before} dimensions then, {after} now", classes=True)
        texts.append("other embeddings")
    if then.confirmed != now.confirmed and (parts is None or TRAIN in parts):
        texts.append("data.corrections confirms other labels")
    chosen = sorted(then.parts.keys() | now.parts.keys(), key=lambda name: (name != TRAIN, name))
    seen: set[tuple[str, str]] = set()
    for name in chosen if parts is None else [name for name in chosen if name in set(parts)]:
        old, new = then.parts.get(name), now.parts.get(name)
        if old is None or new is None:
            texts.append(f"{name}: {'no such part then' if old is None else 'no such part now'}")
        elif old.digest != new.digest and (old.digest, new.digest) not in seen:
            texts.append(f"{name}: {part_text(old, new, then.class_ids)}")
            seen.add((old.digest, new.digest))
    if not texts:
        return None
    if then.label_file and now.label_file and then.label_file != now.label_file:
        texts.append("noise.file has other content")
    return Difference("; ".join(texts))


def class_text(then: DataIdentity, now: DataIdentity) -> str:
    """The difference of classes and of images in memory."""
    if then.data != now.data:
        return f"{then.data} then, {now.data} now"
    if then.shape != now.shape:
        return f"images of shape {then.shape} then, {now.shape} now"
    before, after = len(then.class_ids), len(now.class_ids)
    gone = [name for name in then.class_ids if name not in set(now.class_ids)]
    new = [name for name in now.class_ids if name not in set(then.class_ids)]
    counts = f"{before} classes then, {after} now"
    if len(gone) == len(new) == 1:
        return f"{counts}; renamed: {shown(gone[0])} -> {shown(new[0])}"
    found = [(gone, "removed"), (new, "added")]
    changes = [f"{len(names)} {what} (first {shown(names[0])})" for names, what in found if names]
    return "; ".join([counts, *(changes or ["in another order"])])


def part_text(then: Part, now: Part, class_ids: Sequence[str]) -> str:
    """The difference of two parts of one name: counts then and now, and the first sample of each kind of change."""
    rows = _Rows(then, now)
    moved = rows.moved()
    targets = set(moved.values())
    removed, added = [a for a in rows.removed if a not in moved], [b for b in rows.added if b not in targets]
    renamed = rows.renamed(removed, added)
    kinds = [
        ([] if renamed else list(map(path_text, removed)), "removed"),
        ([] if renamed else list(map(path_text, added)), "added"),
        (_arrows(renamed), "renamed"),
        ([*rows.relabelled(class_ids), *_arrows(moved.items())], "relabelled"),
        (rows.use_changed(USED, BROKEN), "broken now"),
        (rows.use_changed(BROKEN, USED), "no longer broken"),
        (rows.use_changed(USED, REMOVED), "removed by data.corrections"),
        (rows.use_changed(REMOVED, USED), "no longer removed by data.corrections"),
    ]
    changes = [f"{len(found):,} {what} (first {found[0]})" for found, what in kinds if found]
    if not changes:
        changes = ["other samples in data.subset" if rows.use_changed(USED, UNUSED) else "in another order"]
    return "; ".join([f"{then.num_used:,} images then, {now.num_used:,} now", *changes])


def row_map(then: Part, now: Part) -> Ints:
    """For each used sample of ``now`` the earlier row with the same path and label, or NEW: int64 (num_used,)."""
    old = {name: row for row, name in enumerate(then.names[: then.num_used])}
    rows = np.array([old.get(name, NEW) for name in now.names[: now.num_used]], np.int64)
    same = then.labels_N[rows] == now.labels_N[: now.num_used]
    return np.where(same, rows, NEW)


class _Rows:
    """The samples of two parts, matched by path."""

    def __init__(self, then: Part, now: Part) -> None:
        self.then, self.now = then, now
        self.old = {name: row for row, name in enumerate(then.names)}
        self.new = {name: row for row, name in enumerate(now.names)}
        self.removed = [name for name in then.names if name not in self.new]
        self.added = [name for name in now.names if name not in self.old]
        self.both = [(name, self.old[name], row) for name, row in self.new.items() if name in self.old]

    def relabelled(self, class_ids: Sequence[str]) -> list[str]:
        """Each path that has another label, with both labels."""
        pairs = [(name, int(self.then.labels_N[i]), int(self.now.labels_N[j])) for name, i, j in self.both]
        return [f"{path_text(name)}: {shown(class_ids[a])} -> {shown(class_ids[b])}" for name, a, b in pairs if a != b]

    def use_changed(self, before: int, after: int) -> list[str]:
        """Each path whose use has changed in this way."""
        use, now_use = self.then.use_N.tolist(), self.now.use_N.tolist()
        return [path_text(name) for name, i, j in self.both if (use[i], now_use[j]) == (before, after)]

    def moved(self) -> dict[str, str]:
        """Old path -> new path of files that went to another class folder: same file name, other label."""
        target = {os.path.basename(path): path for path in self.added}
        pairs = {path: target.get(os.path.basename(path), "") for path in self.removed}
        one_each = Counter(pairs.values())
        return {
            a: b
            for a, b in pairs.items()
            if b and one_each[b] == 1 and self.then.labels_N[self.old[a]] != self.now.labels_N[self.new[b]]
        }

    def renamed(self, removed: Sequence[str], added: Sequence[str]) -> list[tuple[str, str]]:
        """Pairs of old and new path, where each class has as many removed as added samples; else empty."""
        before = sorted((int(self.then.labels_N[self.old[name]]), name) for name in removed)
        after = sorted((int(self.now.labels_N[self.new[name]]), name) for name in added)
        if [label for label, _ in before] != [label for label, _ in after]:
            return []
        return [(a, b) for (_, a), (_, b) in zip(before, after, strict=True)]


def _arrows(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{path_text(a)} -> {path_text(b)}" for a, b in pairs]
