"""The image files of a split: their contents, and the list of the bad ones.

The decoders call it.
"""

import logging
import threading
from pathlib import Path

from fastcpc.data.dataset import ImageSplit
from fastcpc.data.image_store import ImageStore
from fastcpc.errors import RunError

logger = logging.getLogger("fastcpc")


class FileBytes:
    """The files of a split as bytes. Files that were read stay in memory, up to a budget.

    num_read: number of files read from disk. num_kept, kept_bytes: number and size of the files in memory.
    """

    def __init__(self, images: ImageStore, budget: int) -> None:
        """budget: maximum bytes to keep in memory, 0 or more."""
        self.num_read = self.kept_bytes = 0
        self._images, self._budget = images, budget
        self._kept: dict[int, bytes] = {}
        self._lock = threading.Lock()

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    def read(self, row: int) -> bytes:
        """The file of a row. Raises BadImage. Threads may call it at the same time."""
        content = self._kept.get(row)
        if content is not None:
            return content
        content = self._images.read(row)
        with self._lock:
            self.num_read += 1
            if row not in self._kept and self.kept_bytes + len(content) <= self._budget:
                self._kept[row] = content
                self.kept_bytes += len(content)
        return content


class BadImages:
    """Counts the files of a split that cannot be read, and names them in a file.

    rows: their positions in the split.
    """

    def __init__(self, split: ImageSplit, max_bad: float | None, listed_in: Path | None) -> None:
        """max_bad: the maximum share of bad files; None for a test set, which must be complete.

        listed_in: file that gets a line per bad file; None: no list.
        """
        self.rows: set[int] = set()
        self.num_samples = len(split)
        self._split, self._max_bad, self._listed_in = split, max_bad, listed_in

    def add(self, row: int, reason: str) -> None:
        """Count a bad file. Raises RunError if there are too many."""
        if row in self.rows:
            return
        self.rows.add(row)
        name, num_samples = self._split.names[row], len(self._split)
        self._write(f"{self._split.images.path(row)}\t{reason}\n")
        if len(self.rows) > (self._max_bad or 0.0) * num_samples:
            limit = "test images cannot be read, and a test set must be whole"
            if self._max_bad is not None:
                limit = f"images cannot be read, more than data.max_bad={self._max_bad:g} allows"
            listed = "" if self._listed_in is None else f"; all that were met are listed in {self._listed_in}"
            raise RunError(f"{len(self.rows)} of {num_samples} {limit}; the last: {name}: {reason}{listed}")
        logger.warning("%s cannot be read (%s); using a replacement image", name, reason)

    def _write(self, line: str) -> None:
        if self._listed_in is None:
            return
        known = self._listed_in.read_text(encoding="utf-8") if self._listed_in.exists() else ""
        if line not in known.splitlines(keepends=True):  # a resumed run finds the same files again
            with self._listed_in.open("a", encoding="utf-8") as file:
                file.write(line)
