"""Work for processes, which import it by name."""

import os
import time
from pathlib import Path

from fastcpc.data.image_store import ImageFiles

LARGE = 5_000_000  # bytes; more than a pipe holds


def paths(images: ImageFiles) -> tuple[str, ...]:
    """The paths of a chunk."""
    return images.paths


def large(images: ImageFiles) -> bytes:
    """A result that a process can only write while it is read."""
    return bytes(LARGE)


def noted(images: ImageFiles) -> bytes:
    """A large result; leaves an empty file for each image. Those that hold "slow" take two seconds."""
    for path in images.paths:
        time.sleep(2 * ("slow" in Path(path).name))
        Path(path).touch()
    return large(images)


def refused(images: ImageFiles) -> tuple[str, ...]:
    """The paths of a chunk; KeyError for those that hold "bad"."""
    if any("bad" in path for path in images.paths):
        raise KeyError(*images.paths)
    return images.paths


def ended(images: ImageFiles) -> tuple[str, ...]:
    """The paths of a chunk; the process ends at those that hold "bad"."""
    if any("bad" in path for path in images.paths):
        os._exit(9)
    return images.paths
