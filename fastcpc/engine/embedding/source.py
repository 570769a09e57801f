"""The images to embed: a folder with a folder per class, a list of files, shards, or Parquet files."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastcpc.config.data_root import find_root_files, root_folder, walk_files
from fastcpc.config.schema import DataConfig
from fastcpc.config.sources import path_text
from fastcpc.data.containers.parquet_schema import has_images
from fastcpc.data.containers.webdataset import PACKED_ENDINGS
from fastcpc.data.datasets.image_folder import list_imagefolder
from fastcpc.data.datasets.listing import Listing
from fastcpc.data.identity import Part, part_text
from fastcpc.data.image_files import IMAGE_ENDINGS
from fastcpc.data.image_store import ImageStore
from fastcpc.data.labels.table_reader import TABLE_ENDINGS
from fastcpc.data.prepare.index import unique_splits
from fastcpc.data.registry import list_images
from fastcpc.errors import InputError

SHARDS, PARQUET, FOLDER = "webdataset", "parquet", "imagefolder"
CONTAINERS = (SHARDS, PARQUET)
OPTIONS = {"data.label_key": "--label-key", "data.image_key": "--image-key", "data.root": "SOURCE"}


@dataclass(frozen=True)
class Source:
    """Images with their given labels; entry i of all fields is the same image.

    root: the folder that names are relative to. labels: int64 (N,). trusted: int64 (N,), -1 where unknown, or None.
    splits: train, val or test per image. remarks: lines for the user. image_key: as asked.
    """

    root: Path
    names: tuple[str, ...]
    images: ImageStore
    labels: NDArray[np.int64]
    trusted: NDArray[np.int64] | None
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    remarks: tuple[str, ...]
    image_key: str = ""

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


def list_source(source: str, label_key: str = "", image_key: str = "") -> Source:
    """The images of SOURCE, in the order of its data set (data.name), all splits.

    label_key, image_key: as the settings of ``data``. InputError, one line, where there are no images, where SOURCE has
    two kinds of files, and where classes and splits do not match.
    """
    kind = source_kind(source)
    path = Path(source).expanduser()
    if kind in CONTAINERS:
        root = root_folder(source)
        data = DataConfig(name=kind, root=source, holdout=0.0, label_key=label_key, image_key=image_key)
        listing = _list_containers(data)
    else:
        if label_key or image_key:
            option = "--label-key" if label_key else "--image-key"
            raise InputError(f"{option}={label_key or image_key}: is for shards and Parquet files, not {source}")
        root = path if path.is_dir() else path.parent
        listing = list_imagefolder(str(root), "" if path.is_dir() else source, holdout=0.0)
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
        image_key=image_key,
    )


def _list_containers(data: DataConfig) -> Listing:
    """The listing of shards or Parquet files; errors name the options instead of the settings."""
    try:
        return list_images(data)
    except InputError as error:
        text = str(error).replace(f"data.root={data.root}", data.root)
        for setting, option in OPTIONS.items():
            text = text.replace(setting, option)
        raise InputError(text) from None


def source_kind(source: str) -> str:
    """What SOURCE is: webdataset or parquet, else imagefolder, which also reads lists.

    A folder with images is an imagefolder, whatever else it has. A Parquet file without images is a list.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder_kind(source, path)
    names = find_root_files("SOURCE", source, ()).names
    kinds = {_file_kind(name) for name in names}
    if len(kinds) > 1:
        raise InputError(f"{source}: has {' and '.join(sorted(kinds))} files; give a pattern of one kind")
    kind = kinds.pop()
    if kind == PARQUET and path.exists() and not has_images(str(path)):
        return FOLDER
    if kind == FOLDER and (not path.exists() or path.suffix.lower() not in TABLE_ENDINGS):
        raise InputError(
            f"{source}: unknown kind of file; use a folder of images, a list ({', '.join(TABLE_ENDINGS)}), shards "
            "(.tar) or Parquet files with images"
        )
    return kind


def _folder_kind(source: str, path: Path) -> str:
    stems: dict[str, set[str]] = {SHARDS: set(), PARQUET: set()}
    for file in walk_files(path):
        if file.lower().endswith(IMAGE_ENDINGS):
            return FOLDER
        kind = _file_kind(file)
        if kind in stems:
            stems[kind].add(file.rpartition(".")[0])
    if stems[SHARDS] and stems[PARQUET] - stems[SHARDS]:  # img2dataset writes a table of the same name beside a shard
        raise InputError(f"{source}: has shards (.tar) and Parquet files; give a pattern of one kind, such as '*.tar'")
    return SHARDS if stems[SHARDS] else PARQUET if stems[PARQUET] else FOLDER


def _file_kind(name: str) -> str:
    if name.lower().endswith((".tar", *PACKED_ENDINGS)):
        return SHARDS
    return PARQUET if name.lower().endswith(".parquet") else FOLDER
