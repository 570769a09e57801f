"""Writes and reads the index: the checks of fastcpc-prepare per image, as a Parquet file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastcpc.atomic_io import staged_file
from fastcpc.config.data_root import root_folder
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.listing import Listing
from fastcpc.data.image_store import UNKNOWN_SIZE
from fastcpc.data.prepare.check_images import ImageCheck
from fastcpc.errors import InputError, RunError

FOLDER = ".fastcpc-index"
META = b"fastcpc"
VERSION = 1
SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("index", pa.int64()),
        ("path", pa.string()),
        ("label", pa.int64()),
        ("trusted_label", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("fault", pa.string()),
        ("note", pa.string()),
    ]
)


@dataclass(frozen=True)
class Index:
    """problems: the problem of each checked image, by its path relative to the root; empty where it decodes.

    sizes: bytes of the broken images when they were checked.
    """

    path: Path
    problems: dict[str, str]
    sizes: dict[str, int]

    def is_outdated(self, name: str, state: tuple[int, int] | None) -> bool:
        """Whether a broken image has changed since it was checked: its size, or its time is that of a later change.

        state: of ``ImageStore``.
        """
        if state is None:
            return False
        num_bytes, mtime_ns = state
        return num_bytes not in (UNKNOWN_SIZE, self.sizes[name]) or mtime_ns > self.path.stat().st_mtime_ns


def index_path(root: str, name: str) -> Path:
    """Default path of the index of a data set."""
    return root_folder(root) / FOLDER / f"{name}.parquet"


def write_index(path: Path, listing: Listing, checks: dict[str, ImageCheck]) -> None:
    """Write a row per image and split, and replace the file atomically. checks: by name. RunError if writing fails."""
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for split_name, split in unique_splits(listing):
        trusted = [None] * len(split) if split.trusted is None else [v if v >= 0 else None for v in split.trusted]
        columns["trusted_label"] += trusted
        columns["split"] += [split_name] * len(split)
        columns["index"] += split.source_index.tolist()
        columns["path"] += split.names
        columns["label"] += split.labels.tolist()
        found = [checks[name] for name in split.names]
        for column in ("width", "height", "format", "note"):
            columns[column] += [getattr(check, column) for check in found]
        columns["fault"] += [check.problem for check in found]
        columns["bytes"] += [check.num_bytes for check in found]
    about = {"version": VERSION, "data": listing.name, "classes": listing.class_names, "class_ids": listing.class_ids}
    schema = SCHEMA.with_metadata({META: json.dumps(about).encode()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path) as file:
            pq.write_table(pa.Table.from_pydict(columns, schema=schema), file)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); --out names another file") from None


def unique_splits(listing: Listing) -> list[tuple[str, ImageSplit]]:
    """The splits with their names. A split with two names appears once, with its first name."""
    seen: set[int] = set()
    chosen = []
    for name, split in listing.splits.items():
        if id(split) not in seen:
            chosen.append((name, split))
        seen.add(id(split))
    return chosen


def read_index(root: str, name: str, file: str = "") -> Index | None:
    """Read the index that data.index names, or the one in the root. Returns None where the root has no index.

    Raises InputError for an index that cannot be read or belongs to another data set.
    """
    path = Path(file).expanduser() if file else index_path(root, name)
    if not path.is_file():
        if file:
            raise InputError(f"data.index={file}: no such file; fastcpc-prepare {name} --root {root} --out {file}")
        return None
    again = f"run fastcpc-prepare {name} --root {root} again"
    try:
        table = pq.read_table(path, columns=["path", "fault", "bytes"])
        about = json.loads((table.schema.metadata or {}).get(META, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not an index ({str(error).splitlines()[0][:80]}); {again}") from None
    if about.get("version") != VERSION or about.get("data") != name:
        raise InputError(f"{path}: not an index of {name} that this version reads; {again}")
    broken = table.filter(pc.not_equal(table["fault"], ""))
    sizes = dict(zip(broken["path"].to_pylist(), broken["bytes"].to_pylist(), strict=True))
    return Index(path, dict(zip(table["path"].to_pylist(), table["fault"].to_pylist(), strict=True)), sizes)


def bad_list(pairs: Iterable[tuple[str, str]]) -> str:
    """Text of the list of broken images, one line per image: path, tab, reason."""
    return "".join(f"{name}\t{reason}\n" for name, reason in pairs)


def invalid_rows(names: Sequence[str], index: Index) -> list[int]:
    """Positions of the images that have a problem in the index."""
    return [row for row, name in enumerate(names) if index.problems.get(name)]
