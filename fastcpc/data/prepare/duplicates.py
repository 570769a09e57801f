"""Exact duplicates between the training images and the test images, for fastcpc-prepare."""

from collections.abc import Mapping

from fastcpc.config.sources import path_text
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.prepare.check_images import content_digest

SHOWN = 3  # pairs that the note names


def duplicates_note(train: Mapping[str, bytes], tests: Mapping[str, bytes], what: str) -> str:
    """One note on test images that are training images too; empty where there are none.

    train, tests: name -> digest of the content; an empty digest is no content. what: what was compared.
    """
    first: dict[bytes, str] = {}
    for name, digest in train.items():
        if digest:
            first.setdefault(digest, name)
    found = [(name, first[digest]) for name, digest in tests.items() if digest in first and name not in train]
    if not found:
        return ""
    pairs = ", ".join(f"{path_text(name)} = {path_text(other)}" for name, other in found[:SHOWN])
    more = ", ..." if len(found) > SHOWN else ""
    return (
        f"{len(found):,} of {len(tests):,} test images are training images, too ({what}): {pairs}{more}; the test "
        "accuracy is too high, remove them from one part"
    )


def array_duplicates_note(dataset: Dataset) -> str:
    """``duplicates_note`` of a data set in memory, by its pixels."""
    parts = [dataset.train, *(split for split in dataset.tests.values() if split is not dataset.train)]
    train, *others = [_pixel_digests(split) if isinstance(split, ArraySplit) else {} for split in parts]
    tests = {name: digest for part in others for name, digest in part.items()}
    return duplicates_note(train, tests, "equal pixels")


def _pixel_digests(split: ArraySplit) -> dict[str, bytes]:
    pixels = split.pixels.numpy()
    return {name: content_digest(pixels[row].tobytes()) for row, name in enumerate(split.names)}
