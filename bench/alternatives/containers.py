"""Shards and Parquet: indexing with Python's tarfile, and single images with pyarrow's row groups.

    OMP_NUM_THREADS=1 python bench/alternatives/containers.py
    OMP_NUM_THREADS=1 python bench/alternatives/containers.py --index 40000     # minutes less: indexing alone

The first rows list shards of 1,000 samples, an image and a .cls each, by the data set and by tarfile, which reads no
labels. The next row lists Parquet files, whose labels pyarrow reads. These rows are valid if the index and its names
need at most 100 bytes per member. A row of a Parquet file, with an image and a label, counts as two. The other rows
read images in random order from a Parquet file of each usual layout. They are valid if all bytes are equal. Files are
in the page cache.
"""

import io
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcpc.config.schema import DataConfig
from fastcpc.data.containers import parquet_cells
from fastcpc.data.registry import list_images

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import Check, Report, Row, arguments, cpu_seconds, this_machine, time_in_turns

NUM_MEMBERS, PER_SHARD = 200_000, 2_000  # number: multiple of PER_SHARD
SIZES = (500, 4_000)  # bytes of an image
MOST_BYTES = 100.0  # per member
NUM_CELLS, CELL, READ = 2_000, 120_000, 60
LAYOUTS: dict[str, dict[str, Any]] = {
    "not compressed, as datasets writes": {"compression": "none", "use_dictionary": False, "row_group_size": 1000},
    "Snappy, 100 rows per group": {"row_group_size": 100},
    "Snappy, pyarrow's default": {},
}


def write_shards(folder: Path, size: int, number: int) -> None:
    """Members in shards: random bytes as images, and labels."""
    draws = np.random.default_rng(0)
    for first in range(0, number // 2, PER_SHARD // 2):
        with tarfile.open(folder / f"{first:09d}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for number in range(first, first + PER_SHARD // 2):
                for ending, content in (("jpg", draws.bytes(size)), ("cls", b"%d" % (number % 10))):
                    info = tarfile.TarInfo(f"{number:09d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def index_row(size: int, number: int, repeats: int) -> Row:
    """One row of indexing this number of members."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, size, number)
        data = DataConfig(name="webdataset", root=name, holdout=0.0)

        def by_tarfile() -> int:
            count = 0
            for path in sorted(folder.glob("*.tar")):
                with tarfile.open(path) as tar:
                    count += len(tar.getmembers())
            return count

        assert 2 * len(list_images(data).splits["train"]) == by_tarfile() == number
        labels = {"what": "index", "members": number, "image bytes": size}
        return _index_row(labels, data, number, {"tarfile": by_tarfile}, repeats)


def parquet_index_row(number: int, repeats: int) -> Row:
    """One row of indexing Parquet files with this number of rows; pyarrow reads their labels only."""
    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for first in range(0, number, PER_SHARD):
            columns = {
                "image": pa.array([draws.bytes(SIZES[0]) for _ in range(PER_SHARD)], pa.binary()),
                "label": pa.array(np.arange(PER_SHARD) % 10),
            }
            pq.write_table(pa.table(columns), folder / f"{first:09d}.parquet", **LAYOUTS["Snappy, 100 rows per group"])
        data = DataConfig(name="parquet", root=name, holdout=0.0)

        def labels() -> int:
            return sum(len(pq.read_table(path, columns=["label"])) for path in sorted(folder.glob("*.parquet")))

        assert len(list_images(data).splits["train"]) == labels() == number
        labels_of = {"what": "index of Parquet", "rows": number, "image bytes": SIZES[0]}
        return _index_row(labels_of, data, number, {"labels by pyarrow": labels}, repeats, members=2)


def _index_row(
    labels: dict[str, Any],
    data: DataConfig,
    number: int,
    others: dict[str, Callable[[], Any]],
    repeats: int,
    members: int = 1,
) -> Row:
    """Memory and times of listing the entries, and times of other ways. members: that an entry counts as."""
    tracemalloc.start()
    listing = list_images(data)
    kept, peak = (value / number for value in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    del listing
    own = {"fastcpc": lambda: list_images(data)}
    timings = time_in_turns(own | others, repeats, "cpu")
    used = time_in_turns(own, repeats, "cpu", warmup=0, clock=cpu_seconds)["fastcpc"]
    notes: dict[str, float] = {
        "per second": round(number / timings["fastcpc"].median),
        "per CPU second": round(number / used.median),
        "kept bytes": round(kept, 1),
    }
    return Row(labels, Check("peak bytes", peak, members * MOST_BYTES), "fastcpc", timings, notes=notes)


def cell_row(layout: str, repeats: int) -> Row:
    """One row of reading READ images from a Parquet file of NUM_CELLS."""
    draws = np.random.default_rng(0)
    contents = [draws.bytes(CELL) for _ in range(NUM_CELLS)]
    rows = draws.permutation(NUM_CELLS)[:READ].tolist()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.parquet"
        columns = {"image": pa.array(contents, pa.binary()), "label": pa.array(np.arange(NUM_CELLS) % 2)}
        pq.write_table(pa.table(columns), path, **LAYOUTS[layout])
        images = list_images(DataConfig(name="parquet", root=name, holdout=0.0)).splits["train"].images
        file = pq.ParquetFile(path)
        group = file.metadata.row_group(0).num_rows

        def by_cell() -> list[bytes]:
            parquet_cells.clear()
            return [images.read(row) for row in rows]

        def by_group() -> bytes:
            row = rows[0]
            column = file.read_row_group(row // group, columns=["image"]).column(0)
            value: bytes = column[row % group].as_py()
            return value

        wrong = sum(found != contents[row] for found, row in zip(by_cell(), rows, strict=True))
        wrong += by_group() != contents[rows[0]]
        timings = time_in_turns({f"{READ} cells": by_cell, "a row group by pyarrow": by_group}, repeats, "cpu")
        file.close()
    per_image = 1e3 * timings[f"{READ} cells"].median / READ
    labels = {"what": "cells", "layout": layout, "image bytes": CELL}
    notes = {"ms per image": round(per_image, 3)}
    return Row(labels, Check("wrong images", float(wrong), 0.0), f"{READ} cells", timings, notes=notes)


def main() -> int:
    """Run the bench."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--index", type=int, default=0, metavar="N", help="only list N small members and N rows")
    options = parser.parse_args()
    number, repeats = options.index or NUM_MEMBERS, options.repeats or 5
    report = Report("containers_index" if options.index else "containers", this_machine("cpu"), options.results)
    for size in SIZES[: 1 if options.index else None]:
        report.add(index_row(size, number, repeats))
    report.add(parquet_index_row(number, repeats))
    for layout in () if options.index else LAYOUTS:
        report.add(cell_row(layout, repeats))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
