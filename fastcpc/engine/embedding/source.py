"""The images to embed: a folder with a folder per class, or a list of files."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastcpc.config.sources import path_text
from fastcpc.data.datasets.image_folder import list_imagefolder
from fastcpc.data.identity import Part, part_text
from fastcpc.data.image_store import ImageStore
from fastcpc.data.labels.table_reader import TABLE_ENDINGS
from fastcpc.data.prepare.index import unique_splits
from fastcpc.errors import InputError

SHARD_ENDINGS = (".tar", ".tgz")


@dataclass(frozen=True)
class Source:
    """Images with their given labels; entry i of all fields is the same image.

    root: the folder that names are relative to. labels: int64 (N,). trusted: int64 (N,), -1 where unknown, or None.
    splits: train, val or test per image. remarks: lines for the user.
    """

    root: Path
    names: tuple[str, ...]
    images: ImageStore
    labels: NDArray[np.int64]
    trusted: NDArray[np.int64] | None
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    remarks: tuple[str, ...]

    def digest(self) -> str:
        """Of names, labels, splits and classes, for the check that a job is resumed with the same images."""
        digest = hashlib.sha256()
        for part in (self.names, self.splits, self.class_names):
            digest.update("\0".join(part).encode() + b"\1")
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def table(self) -> bytes:
        """Path, class and split of each image as Parquet, for ``changed_images``."""
        columns = {
            "path": pa.array(self.names, pa.string()),
            "class": pa.array([self.class_names[label] for label in self.labels.tolist()], pa.string()),
            "split": pa.array(self.splits, pa.string()),
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())


def changed_images(table: Path, source: Source, unreadable: Set[str] = frozenset()) -> str:
    """What differs between the images of a table (path, class, split) and a source: counts and the first paths.

    unreadable: images that are not in the table because they cannot be read.
    """
    then = pq.read_table(table, columns=["path", "class", "split"])
    old = dict(zip(then["path"].to_pylist(), then["class"].to_pylist(), strict=True))
    new = dict(zip(source.names, (source.class_names[k] for k in source.labels.tolist()), strict=True))
    old |= {name: new.get(name, "") for name in unreadable - old.keys()}
    classes = sorted({*old.values(), *new.values()})
    text = part_text(_part(old, classes), _part(new, classes), classes)
    splits = dict(zip(then["path"].to_pylist(), then["split"].to_pylist(), strict=True))
    moved = [name for name, split in zip(source.names, source.splits, strict=True) if splits.get(name, split) != split]
    return f"{text}; {len(moved):,} in another split (first {path_text(moved[0])})" if moved else text


def _part(class_of: Mapping[str, str], classes: Sequence[str]) -> Part:
    labels_N = np.array([classes.index(name) for name in class_of.values()], np.int64)
    return Part(tuple(class_of), labels_N, np.zeros(len(labels_N), np.int8))


def list_source(source: str) -> Source:
    """The images of SOURCE, in the order of data.name=imagefolder, all splits.

    InputError, one line, where there are none, or where classes and splits do not match.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"{source}: no such folder or file")
    if path.is_dir():
        _refuse_shards(source, [item.name for item in path.iterdir()])
        root, list_file = path, ""
    else:
        _refuse_shards(source, [path.name])
        if path.suffix.lower() not in TABLE_ENDINGS:
            raise InputError(f"{source}: unknown kind of list; use {', '.join(TABLE_ENDINGS)}, or a folder of images")
        root, list_file = path.parent, source
    listing = list_imagefolder(str(root), list_file, holdout=0.0)
    parts = unique_splits(listing)
    trusted = [np.full(len(part), -1) if part.trusted is None else part.trusted for _, part in parts]
    known = np.concatenate(trusted)
    return Source(
        root=root.resolve(),
        names=tuple(name for _, part in parts for name in part.names),
        images=reduce(lambda one, two: one.joined(two), (part.images for _, part in parts)),
        labels=np.concatenate([part.labels for _, part in parts]),
        trusted=known if (known >= 0).any() else None,
        splits=tuple(name for name, part in parts for _ in range(len(part))),
        class_names=listing.class_names,
        remarks=listing.remarks,
    )


def _refuse_shards(source: str, names: list[str]) -> None:
    shown = [name for name in names if not name.startswith(".")]
    if shown and all(name.lower().endswith(SHARD_ENDINGS) or name.lower().endswith(".tar.gz") for name in shown):
        raise InputError(
            f"{source}: webdataset shards (.tar) cannot be embedded yet; unpack them into a folder with a folder per "
            "class, or give a list of the images"
        )
