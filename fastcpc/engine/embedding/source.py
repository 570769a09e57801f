"""The images to embed: a folder with a folder per class, or a list of files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcpc.data.datasets.image_folder import list_imagefolder
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
    paths: tuple[str, ...]
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
        paths=tuple(file for _, part in parts for file in part.paths),
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
