"""What fastcpc-prepare found out about each image, as a Parquet file that training reads."""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.listing import Listing
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
    """fault of each checked image by its path relative to the root; empty where it decodes."""

    path: Path
    problems: dict[str, str]


def index_path(root: str, name: str) -> Path:
    """Where the index of a data set lies unless told otherwise."""
    return Path(root).expanduser() / FOLDER / f"{name}.parquet"


def write_index(path: Path, listing: Listing, checks: dict[str, ImageCheck]) -> None:
    """Write a row for each image of each split, replacing the file at once. checks: by name. RunError if it cannot."""
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
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pydict(columns, schema=schema), part)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); --out names another file") from None


def unique_splits(listing: Listing) -> list[tuple[str, ImageSplit]]:
    """The splits by name, one that goes by two names only once."""
    seen: set[int] = set()
    chosen = []
    for name, split in listing.splits.items():
        if id(split) not in seen:
            chosen.append((name, split))
        seen.add(id(split))
    return chosen


def read_index(root: str, name: str, file: str = "") -> Index | None:
    """The index that data.index names, or that lies in the root; None where none does.

    Raises InputError for one that cannot be read or was written for another data set.
    """
    path = Path(file).expanduser() if file else index_path(root, name)
    if not path.is_file():
        if file:
            raise InputError(f"data.index={file}: no such file; fastcpc-prepare {name} --root {root} --out {file}")
        return None
    again = f"run fastcpc-prepare {name} --root {root} again"
    try:
        table = pq.read_table(path, columns=["path", "fault"])
        about = json.loads((table.schema.metadata or {}).get(META, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not an index ({str(error).splitlines()[0][:80]}); {again}") from None
    if about.get("version") != VERSION or about.get("data") != name:
        raise InputError(f"{path}: not an index of {name} that this version reads; {again}")
    return Index(path, dict(zip(table["path"].to_pylist(), table["fault"].to_pylist(), strict=True)))


def bad_list(pairs: Iterable[tuple[str, str]]) -> str:
    """Text of the list of broken images: path, tab, reason, a line each."""
    return "".join(f"{name}\t{reason}\n" for name, reason in pairs)


def invalid_rows(names: Sequence[str], index: Index) -> list[int]:
    """Positions of the images that the index calls broken."""
    return [row for row, name in enumerate(names) if index.problems.get(name)]
