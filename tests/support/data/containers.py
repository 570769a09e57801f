"""Shards and Parquet files that hold the images of a folder; not a test itself."""

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from image_run import coloured_images, image_config

from fastcpc.config.schema import Config

Member = tuple[str, bytes]


def tar_bytes(members: Iterable[Member], kind: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar file with these members. kind: of tarfile: USTAR_FORMAT, GNU_FORMAT or PAX_FORMAT."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[Member], kind: int = tarfile.GNU_FORMAT) -> Path:
    """Write ``tar_bytes``, the folders first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members, kind))
    return path


def folder_samples(root: Path) -> list[tuple[str, str, bytes]]:
    """Class, name and content of the images of a folder, in the order of data.name=imagefolder."""
    files = [path for folder in sorted(root.iterdir()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(path.relative_to(root).parts[0], path.name, path.read_bytes()) for path in files]


def members_of(samples: Sequence[tuple[str, str, bytes]], label: str = "cls") -> list[Member]:
    """An image and a label per sample. label: cls, txt, or a key of the .json members."""
    members = []
    for number, (name, file, content) in enumerate(samples):
        key = f"{number:06d}"
        text = (label, f"{name}\n".encode())
        if label not in ("cls", "txt"):
            text = ("json", json.dumps({"url": "x", label: name}).encode())
        members += [(f"{key}.{file.rpartition('.')[2]}", content), (f"{key}.{text[0]}", text[1])]
    return members


def write_shards(folder: Path, part: str, samples: Sequence[tuple[str, str, bytes]], per_shard: int) -> None:
    """PART-00000.tar, ... with their labels as .cls."""
    for number, first in enumerate(range(0, len(samples), per_shard)):
        write_tar(folder / f"{part}-{number:05d}.tar", members_of(samples[first : first + per_shard]))


def image_table(samples: Sequence[tuple[str, str, bytes]], classes: Sequence[str] = ()) -> pa.Table:
    """Hugging Face's layout: struct of bytes and path, and labels: a ClassLabel of these classes, or names."""
    contents = pa.array([content for _, _, content in samples], pa.binary())
    image = pa.StructArray.from_arrays([contents, pa.array([file for _, file, _ in samples])], ["bytes", "path"])
    if not classes:
        return pa.table({"image": image, "label": pa.array([name for name, _, _ in samples])})
    label = {"names": list(classes), "_type": "ClassLabel"}
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    table = pa.table({"image": image, "label": pa.array([classes.index(name) for name, _, _ in samples])})
    return table.replace_schema_metadata({"huggingface": json.dumps(about)})


def write_parquet(path: Path, table: pa.Table, **options: object) -> Path:
    """Write a table, the folders first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def image_forms(root: Path) -> None:
    """The images of image_run as folder f, list l.csv, shards s and Parquet files p."""
    coloured_images(root / "f")
    rows = [("path", "label", "split")]
    for part in ("train", "test"):
        samples = folder_samples(root / "f" / part)
        rows += [(f"{part}/{label}/{name}", label, part) for label, name, _ in samples]
        write_shards(root / "s", part, samples, 10)
        for number, first in enumerate(range(0, len(samples), 20)):
            table = image_table(samples[first : first + 20], ("blue", "green", "red"))
            write_parquet(root / "p" / "data" / f"{part}-{number:05d}-of-00003.parquet", table, row_group_size=7)
    with (root / "l.csv").open("w") as file:
        csv.writer(file).writerows(rows)


def form_settings(root: Path, kind: str) -> dict[str, Any]:
    """Settings of data for one of the ``image_forms``."""
    forms = {
        "folder": {"name": "imagefolder", "root": str(root / "f")},
        "list": {"name": "imagefolder", "root": str(root / "f"), "list": str(root / "l.csv")},
        "shards": {"name": "webdataset", "root": str(root / "s")},
        "parquet": {"name": "parquet", "root": str(root / "p" / "data" / "*.parquet")},
    }
    return forms[kind]


def form_config(root: Path, kind: str, folder: Path, loader: str, **data: Any) -> Config:
    """The run of image_run on one of the ``image_forms``. folder: of the run."""
    whole = image_config(root / "f", folder, loader)
    return replace(whole, data=replace(whole.data, **{**form_settings(root, kind), **data}))
