"""fastcpc-prepare: check a data set on disk, and write the index and the cache that training reads.

No file of the data set changes. The index goes to ROOT/.fastcpc-index/NAME.parquet, or to --out.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import TypeAlias

import numpy as np
from tqdm import tqdm

from fastcpc.config.schema import DataConfig
from fastcpc.config.sizes import interpolation_of, resize_of
from fastcpc.data.dataset import RGB, ImageSplit
from fastcpc.data.datasets.listing import Listing
from fastcpc.data.image_files import BadImage, read_image_header
from fastcpc.data.image_store import ImageStore
from fastcpc.data.prepare.cache import CacheWriter, cache_path
from fastcpc.data.prepare.check_images import ImageCheck, ResizedImage, check_images
from fastcpc.data.prepare.duplicates import array_duplicates_note, duplicates_note
from fastcpc.data.prepare.index import bad_list, index_path, unique_splits, write_index
from fastcpc.data.registry import dataset_spec, list_images, load_dataset
from fastcpc.errors import InputError, RunError

SIZED = 200  # images whose size is read, to estimate the size of the cache
PROGRESS_SECONDS = 30.0  # between lines in the log of a batch job
SHOWN = 10  # broken images and notes that are printed; the files list all
Checked: TypeAlias = tuple[ImageCheck, ResizedImage | None]


def run(options: argparse.Namespace, data: DataConfig) -> int:
    """Check the data set, write its index and cache; returns the exit code.

    options: of ``fastcpc.cli.prepare``; data: the same settings as in a config.
    """
    if dataset_spec(data.name).list_files is None:
        return _check_arrays(data)
    out = Path(options.out).expanduser() if options.out else index_path(data.root, data.name)
    listing = list_images(data)  # before the first write, so that a wrong folder stays unchanged
    _print_listing(listing)
    _require_writable(out)
    side, interpolation = resize_of(data), interpolation_of(data)
    with _stop_on_sigterm():
        checks = _decode(listing, options.jobs, cache_path(out, side) if options.cache else None, side, interpolation)
    write_index(out, listing, checks)
    bad = [(name, check.problem) for name, check in checks.items() if check.problem]
    bad_file = out.with_suffix(".bad.txt")
    try:
        bad_file.write_text(bad_list(bad), encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise RunError(f"{bad_file}: cannot be written ({error.strerror})") from None
    _print_notes(checks)
    _print_duplicates(listing, checks)
    print(f"index written to {out}")
    if options.cache:
        print(f"images of {side} px cached in {cache_path(out, side).with_suffix('.bin')}")
    if options.out:
        print(f"training reads it with data.index={out}")
    return _judge(listing, checks, bad, bad_file, data.max_bad)


def _check_arrays(data: DataConfig) -> int:
    """Check a data set without an index: loading it is the check."""
    dataset = load_dataset(data)
    tests = ", ".join(f"{name} {len(split):,}" for name, split in dataset.tests.items())
    print(
        f"{data.name}: train {len(dataset.train):,}, {tests} images, {dataset.num_classes} classes; files are complete"
    )
    note = array_duplicates_note(dataset)
    if note:
        print(f"  note: {note}")
    print("this data set needs no index")
    return 0


def _print_listing(listing: Listing) -> None:
    print(f"{listing.name}: {listing.layout}; {len(listing.class_names)} classes")
    for name, split in listing.splits.items():
        counts = np.bincount(split.labels, minlength=len(listing.class_names))
        few, many = int(counts.argmin()), int(counts.argmax())
        trusted = "" if split.trusted is None else f"; {int((split.trusted >= 0).sum()):,} with a true label"
        print(
            f"  {name}: {len(split):,} images; fewest {counts[few]:,} ({listing.class_names[few]}), "
            f"most {counts[many]:,} ({listing.class_names[many]}){trusted}"
        )
    for remark in listing.remarks:
        print(f"  note: {remark}")


def _require_writable(out: Path) -> None:
    """InputError where the index cannot be written: before the long decoding, not after it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out.parent}: cannot be created ({error.strerror}); give another file with --out") from None
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out.parent}: is not writable; give another file for the index with --out")


def _decode(listing: Listing, jobs: int, cache: Path | None, side: int, interpolation: str) -> dict[str, ImageCheck]:
    """Decode every image once; returns the checks by name. cache: table of the cache to write, or None."""
    names, images = _every_image(listing)
    found = check_images(images, jobs, side if cache is not None else 0, interpolation)
    checks = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(found))  # type: ignore[type-var]
        writer = None
        if cache is not None:
            size = _mean_pixels(images, side)
            writer = stack.enter_context(CacheWriter(cache, listing.name, side, len(names), size, interpolation))
        for name, (check, small) in zip(names, with_progress(found, len(names)), strict=True):
            checks[name] = check
            if small is not None and writer is not None:
                writer.add(name, small.pixels, check.num_bytes, small.mtime_ns)
    return checks


def _every_image(listing: Listing) -> tuple[list[str], ImageStore]:
    """Name and content of each image of all parts; an image of two parts occurs once."""
    names: list[str] = []
    stores: list[ImageStore] = []
    seen: set[str] = set()
    for _, split in unique_splits(listing):
        rows = [row for row, name in enumerate(split.names) if name not in seen]
        names += [split.names[row] for row in rows]
        seen.update(split.names)
        stores.append(split.images.take(np.array(rows, np.int64)))
    return names, reduce(lambda one, two: one.joined(two), stores)


def with_progress(found: Iterator[Checked], total: int) -> Iterator[Checked]:
    """Show the progress: a bar on a terminal, else a line to stderr every ``PROGRESS_SECONDS``."""
    if sys.stderr.isatty():
        yield from tqdm(found, total=total, unit="img", desc="decoding")
        return
    start = last = time.monotonic()
    for number, one in enumerate(found, start=1):
        yield one
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS:
            print(f"{number:,} of {total:,} images decoded, {number / (now - start):.0f} per second", file=sys.stderr)
            last = now


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the command like an exception, so that worker processes end and partial files are deleted."""

    def stop(signum: int, frame: object) -> None:
        print("stopped by SIGTERM; nothing is written", file=sys.stderr)
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _mean_pixels(images: ImageStore, side: int) -> float:
    """Mean bytes per cached image, estimated from some images at equal distances."""
    sizes = []
    for place in np.linspace(0, len(images) - 1, min(len(images), SIZED)).astype(int):
        with contextlib.suppress(BadImage):
            head = read_image_header(images.read(int(place)))
            scale = min(1.0, side / min(head.height, head.width))
            sizes.append(RGB * head.height * head.width * scale**2)
    return float(np.mean(sizes)) if sizes else 0.0


def _print_notes(checks: dict[str, ImageCheck]) -> None:
    """Print the notes on images that decode, such as a wrong file suffix: counts by kind, with an example."""
    kinds: dict[str, list[str]] = {}
    for name, check in checks.items():
        if check.note:
            kinds.setdefault(check.note, []).append(name)
    ordered = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    for note, names in ordered[:SHOWN]:
        print(f"  note: {note}: {len(names):,} images, such as {names[0]}")
    if len(ordered) > SHOWN:
        print(f"  note: {len(ordered) - SHOWN} more kinds of notes, in the column 'note' of the index")


def _print_duplicates(listing: Listing, checks: dict[str, ImageCheck]) -> None:
    """Print one note where images of the val or test parts have the bytes of training images."""
    parts: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    for name, split in unique_splits(listing):
        parts["train" if name == "train" else "test"] |= {path: checks[path].digest for path in split.names}
    note = duplicates_note(parts["train"], parts["test"], "equal bytes")
    if note:
        print(f"  note: {note}")


def _judge(
    listing: Listing, checks: dict[str, ImageCheck], bad: list[tuple[str, str]], bad_file: Path, max_bad: float
) -> int:
    """Print the broken images; RunError where training would reject the data set."""
    if not bad:
        print(f"all {len(checks):,} images decode")
        return 0
    for name, problem in bad[:SHOWN]:
        print(f"  broken: {name}: {problem}")
    if len(bad) > SHOWN:
        print(f"  broken: {len(bad) - SHOWN:,} more")
    print(f"{len(bad):,} of {len(checks):,} images are broken; {bad_file} lists them by name")
    problems = []
    for name, split in unique_splits(listing):
        num_bad, allowed = _num_bad(split, checks), max_bad * len(split) if name == "train" else 0
        if num_bad > allowed:
            limit = f"data.max_bad={max_bad:g} allows {int(allowed):,}" if name == "train" else "none is allowed"
            problems.append(f"{name}: {num_bad:,} of {len(split):,} images are broken; {limit}")
    if problems:
        raise RunError("\n".join(problems))
    print("training skips them")
    return 0


def _num_bad(split: ImageSplit, checks: dict[str, ImageCheck]) -> int:
    return sum(bool(checks[name].problem) for name in split.names)
