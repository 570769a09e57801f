"""Where the images of a split are: a file each, or the members of container files.

``ImageSplit`` has a store. The decoders, fastcpc-prepare and fastcpc-embed read images from it by row. The stores of
shards and Parquet files are in ``containers/``. All give the bytes of an image file, so one code path decodes them.
"""

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fastcpc.data.image_files import read_bytes

UNKNOWN_SIZE = -1  # of an image whose size is only known once it is read


class ImageStore(Protocol):
    """The encoded images of N samples. Threads may call it at the same time, and a process may get it as a pickle."""

    def __len__(self) -> int: ...

    def path(self, row: int) -> str:
        """Path of an image for messages: of its file, or of the container with the name of the member behind it."""
        ...

    def read(self, row: int) -> bytes:
        """The content of an image file. Raises BadImage."""
        ...

    def state(self, row: int) -> tuple[int, int] | None:
        """Bytes of an image, or UNKNOWN_SIZE, and modification time of its file in ns; None where there is no file."""
        ...

    def take(self, rows: np.ndarray) -> "ImageStore":
        """The images at these positions (int64 (M,)), in the order given."""
        ...

    def joined(self, other: "ImageStore") -> "ImageStore":
        """These images and then those of another store of the same kind."""
        ...


class ImageFiles:
    """Images that are a file each."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, row: int) -> str:
        """See ``ImageStore``."""
        return self.paths[row]

    def read(self, row: int) -> bytes:
        """See ``ImageStore``."""
        return read_bytes(self.paths[row])

    def state(self, row: int) -> tuple[int, int] | None:
        """See ``ImageStore``."""
        try:
            found = os.stat(self.paths[row])
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def take(self, rows: np.ndarray) -> "ImageFiles":
        """See ``ImageStore``."""
        return ImageFiles([self.paths[row] for row in rows.tolist()])

    def joined(self, other: ImageStore) -> "ImageFiles":
        """See ``ImageStore``."""
        assert isinstance(other, ImageFiles)
        return ImageFiles(self.paths + other.paths)


def all_paths(images: ImageStore) -> tuple[str, ...]:
    """The path of each image."""
    return images.paths if isinstance(images, ImageFiles) else tuple(map(images.path, range(len(images))))
