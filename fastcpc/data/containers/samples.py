"""Turns the samples of container files into a ``Listing``: parts, classes, and a list of the user's own.

``webdataset`` and ``parquet`` call it. Samples have the order of the sorted files, and within a file its own order. A
folder, a list, shards and Parquet files with the same images in the same order give the same training.
"""

import os
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcpc.config.data_root import RootFiles, find_root_files
from fastcpc.config.schema import DataConfig
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.held_out import with_test_part
from fastcpc.data.datasets.image_folder import read_classes
from fastcpc.data.datasets.image_list import SPLIT_OF, Members, list_by_file
from fastcpc.data.datasets.listing import UNKNOWN, Listing, check_names, shorten
from fastcpc.data.image_store import ImageStore
from fastcpc.data.labels.label_values import find_missing
from fastcpc.data.labels.list_classes import ListClasses, known_classes, own_classes
from fastcpc.data.paths import same_name
from fastcpc.errors import InputError

PARTS = ("train", "val", "test")
BREAKS = re.compile(r"[\n\r\0]")


class Texts:
    """A text per sample, as a number: data sets have few distinct labels. codes: of each sample, in ``distinct``."""

    def __init__(self) -> None:
        self.distinct: list[str] = []
        self._code_of: dict[str, int] = {}
        self._codes = array("i")

    def add(self, text: str) -> None:
        """The text of the next sample."""
        code = self._code_of.get(text)
        if code is None:
            code = self._code_of[text] = len(self.distinct)
            self.distinct.append(text)
        self._codes.append(code)

    @property
    def codes(self) -> NDArray[np.int32]:
        return np.frombuffer(self._codes, np.int32) if self._codes else np.zeros(0, np.int32)

    def rows_of(self, text: str) -> NDArray[np.int64]:
        """The samples with a text."""
        return np.flatnonzero(self.codes == self._code_of[text])

    def numbers(self, number_of: Mapping[str, int]) -> NDArray[np.int64]:
        """A number per sample, by that of each text."""
        return np.array([number_of[text] for text in self.distinct], np.int64)[self.codes]


@dataclass(frozen=True)
class Samples:
    """The samples of all files in order.

    part_N: number in PARTS. labels: None where they are not read, because a list has them. trusted: None where no
    sample has a true label. class_names: where the files define them, in order. no_label: what to do about an image
    without a label. remarks: lines for the user.
    """

    images: ImageStore
    names: tuple[str, ...]
    part_N: NDArray[np.int8]
    labels: Texts | None
    trusted: Texts | None = None
    class_names: tuple[str, ...] = ()
    no_label: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PartFiles:
    """The files of a data set. base: folder that names are relative to. names: by part, sorted."""

    base: Path
    names: dict[str, tuple[str, ...]]
    remarks: list[str]

    def in_order(self) -> list[tuple[int, str, str]]:
        """Number of the part, name and path of each file."""
        return [
            (PARTS.index(part), name, os.path.join(self.base, name))
            for part in PARTS
            for name in self.names.get(part, ())
        ]


def find_parts(config: DataConfig, endings: Sequence[str], what: str) -> PartFiles:
    """The files of each part, by their names and folders, and those of data.test_root.

    what: the files in words. InputError where there are none, and where a file could belong to two parts.
    """
    root = find_root_files("data.root", config.root, endings)
    if not root.names:
        raise InputError(f"data.root={config.root}: no {what} in this folder{_instead(root)}")
    part_of = {name: _part(name) for name in root.names}
    named = set(part_of.values()) - {""}
    remarks = []
    if not root.is_folder and len(set(part_of.values())) == 1 and not config.test_root:
        if named - {"train"}:
            remarks.append(f"data.root names {named.pop()} files only; they are the training part")
        part_of = dict.fromkeys(root.names, "train")
    elif "train" not in named and "" in part_of.values():
        part_of = {name: part or "train" for name, part in part_of.items()}
    odd = next((name for name, part in part_of.items() if not part), None)
    if odd is not None:
        raise InputError(
            f"{root.path(odd)}: is no train, val or test file by its name, and other files are; name it like them, or "
            "name the training files by a pattern in data.root and the test files in data.test_root"
        )
    if "train" not in part_of.values():
        raise InputError(
            f"data.root={config.root}: has {' and '.join(sorted(named))} files but no training files; name them "
            "train-..., or give a pattern"
        )
    parts = {part: tuple(name for name in root.names if part_of[name] == part) for part in PARTS}
    if config.test_root:
        parts["test"] = _test_files(config, root, parts, endings)
    return PartFiles(root.base, {part: names for part, names in parts.items() if names}, remarks)


def _test_files(
    config: DataConfig, root: RootFiles, parts: Mapping[str, tuple[str, ...]], endings: Sequence[str]
) -> tuple[str, ...]:
    found = find_root_files("data.test_root", config.test_root, endings)
    paths = [found.path(name) for name in found.names]
    if not paths:
        raise InputError(f"data.test_root={config.test_root}: no {', '.join(endings)} in this folder")
    known = {os.path.realpath(root.path(name)) for name in root.names}
    twice = next((path for path in paths if os.path.realpath(path) in known), None)
    if twice is not None or parts["test"]:
        raise InputError(
            f"data.test_root={config.test_root}: {twice or root.path(parts['test'][0])} is a file of data.root; give a "
            "pattern in data.root that leaves the test files out"
        )
    return tuple(os.path.relpath(path, root.base) for path in paths)


def _part(name: str) -> str:
    """The part that a folder or a word of the file's name says: train-00000-of-00004.parquet; "" for none."""
    *folders, file = name.split("/")
    parts = [SPLIT_OF[folder.lower()] for folder in folders if folder.lower() in SPLIT_OF]
    if parts:
        return parts[-1]
    words = re.split(r"[^a-z]+", file.rpartition(".")[0].lower())
    found = {SPLIT_OF[word] for word in words if word in SPLIT_OF}
    if len(found) > 1:
        raise InputError(f"{name}: is {' and '.join(sorted(found))} by its name; rename it")
    return found.pop() if found else ""


def _instead(root: RootFiles) -> str:
    """The end of a message: what kind of data set the folder holds instead."""
    kinds = {".tar": "webdataset", ".parquet": "parquet", ".jpg": "imagefolder", ".jpeg": "imagefolder"}
    kinds[".png"] = "imagefolder"
    other = find_root_files("data.root", str(root.base), list(kinds)).names
    if not other:
        return "; give the folder that has them"
    return f"; it has {shorten(other[0])}: data.name={kinds[os.path.splitext(other[0])[1].lower()]}"


def list_samples(samples: Samples, config: DataConfig, layout: str) -> Listing:
    """The listing of all samples; InputError, with the path of a sample, where labels and classes do not match."""
    known = read_classes(config.classes) if config.classes else None
    remarks = list(samples.remarks)
    check_names("", samples.names)
    if config.list:
        members = Members(samples.images, {same_name(name): row for row, name in enumerate(samples.names)})
        base = Path(samples.images.path(0).removesuffix(samples.names[0]) if samples.names else ".")
        listed = list_by_file(base, config.list, known, members)
        ids, splits, layout = listed.class_ids, listed.splits, f"{layout}, by a list"
        remarks += [listed.note] if listed.note else []
    else:
        classes, trusted_N = _classes(samples, known)
        assert samples.labels is not None
        ids, labels_N = classes.ids, samples.labels.numbers(classes.number_of)
        remarks += [note for note in classes.notes if note]
        splits = {
            part: _split(samples, labels_N, trusted_N, np.flatnonzero(samples.part_N == number))
            for number, part in enumerate(PARTS)
            if (samples.part_N == number).any()
        }
        empty = sorted(set(range(len(ids))) - set(splits["train"].labels.tolist()))
        if empty:
            raise InputError(
                f"data.root={config.root}: no training image of class {empty[0]} ({shorten(ids[empty[0]])}); add "
                "images, or name the classes that there are in data.classes"
            )
    names = ids if known is None else tuple(name for _, name in known)
    return with_test_part(Listing(config.name, layout, names, ids, splits, tuple(remarks)), config.holdout)


def _split(
    samples: Samples, labels_N: NDArray[np.int64], trusted_N: NDArray[np.int64] | None, rows: NDArray[np.int64]
) -> ImageSplit:
    trusted = None if trusted_N is None else trusted_N[rows]
    is_whole = len(rows) == len(samples.names)
    return ImageSplit(
        images=samples.images if is_whole else samples.images.take(rows),
        labels=labels_N[rows],
        trusted=None if trusted is None or not (trusted != UNKNOWN).any() else trusted,
        source_index=np.arange(len(rows), dtype=np.int64),
        names=samples.names if is_whole else tuple(samples.names[row] for row in rows.tolist()),
    )


def _classes(samples: Samples, known: list[tuple[str, str]] | None) -> tuple[ListClasses, NDArray[np.int64] | None]:
    """The classes, by data.classes, by the files or by the labels; and the true label of each sample."""
    labels, trusted = samples.labels, samples.trusted
    assert labels is not None
    if known is None and samples.class_names:
        known = [(name, name) for name in samples.class_names]
    names = [] if known is None else [text for entry in known for text in entry]
    missing = find_missing(labels.distinct, names)
    if missing:
        rows = np.sort(np.concatenate([labels.rows_of(text) for text in missing]))
        raise InputError(
            f"{samples.images.path(int(rows[0]))}: no label ({len(rows):,} image{'s' * (len(rows) > 1)} in all); "
            f"{samples.no_label}"
        )
    unknown = set() if trusted is None else find_missing(trusted.distinct, names)
    true = set() if trusted is None else set(trusted.distinct) - unknown

    def say(label: str, problem: str) -> InputError:
        source = labels if label in labels.distinct else trusted
        assert source is not None
        path = samples.images.path(int(source.rows_of(label)[0]))
        return InputError(f"{path}: {'label' if source is labels else 'true label'} {shorten(label)!r} {problem}")

    broken = next((text for text in (*labels.distinct, *true) if BREAKS.search(text)), None)
    if broken is not None:
        raise say(broken, "has several lines or a NUL, which a class name cannot have; correct it")
    if known is not None:
        classes = known_classes(set(labels.distinct) | true, known, say)
    else:
        train = {labels.distinct[code] for code in np.unique(labels.codes[samples.part_N == 0]).tolist()}
        classes = own_classes(set(labels.distinct), true, train, len(samples.names), say)
    trusted_N = None if trusted is None else trusted.numbers({**classes.number_of, **dict.fromkeys(unknown, UNKNOWN)})
    return classes, trusted_N
