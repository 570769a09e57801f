"""The folder of fastcpc-embed while it is being filled: embeddings in place, and a byte of state per image.

After a kill, only images that are not marked as done are embedded again. Ranks write their own rows.
"""

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastcpc.atomic_io import replace_file, replace_file_in_parts, write_failure
from fastcpc.data.embeddings.record import EMBED_FILE, EMBEDDINGS, INDEX
from fastcpc.engine.embedding.source import Source, changed_images
from fastcpc.errors import InputError, RunError

PART, STATES, JOB, BAD, LOCK = "embeddings.npy.part", "states.part", "job.part.json", "bad_images.txt", ".lock"
IMAGES = "images.part.parquet"  # the images of a job that is not finished
OWN = (EMBEDDINGS, INDEX, EMBED_FILE, PART, STATES, JOB, IMAGES, BAD, LOCK)
TODO, DONE, UNREADABLE = 0, 1, 2
SYNC_SECONDS = 5.0
COPY_ROWS = 8192


class EmbeddingStore:
    """Rows (N, D) float16 in DIR.

    waiting: rows that are written but not yet marked. Rank 0 calls ``prepare`` and ``finish``, every rank ``open`` and
    ``write``.
    """

    def __init__(self, folder: Path, num_rows: int, num_columns: int) -> None:
        self.folder, self.num_rows, self.num_columns = folder, num_rows, num_columns
        self._lock = self._data = self._marks = -1
        self.waiting: list[tuple[int, bytes]] = []
        self._synced = time.monotonic()
        self._offset = len(_header(num_rows, num_columns))

    # ---- the folder ----

    def prepare(self, job: Mapping[str, Any], source: Source) -> bool:
        """Take the folder and make or check its part files. Returns whether it is finished already.

        job: what makes the embeddings; plain values. InputError where the folder holds something else, or the start of
        another job. RunError where the disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there = [item.name for item in self.folder.iterdir() if item.name not in OWN]
            if there:
                raise InputError(f"--out {self.folder}: holds other files ({there[0]}); give a new or empty folder")
            self._take_lock()
        except OSError as error:
            raise InputError(f"--out {self.folder}: cannot be used ({error.strerror}); give another folder") from None
        text = json.loads(json.dumps(job))
        for name, what in ((EMBED_FILE, "holds other embeddings"), (JOB, "holds the start of another job")):
            if (self.folder / name).exists():
                old = _read_json(self.folder / name)
                changed = [key for key in text if old.get(key) != text[key]]
                if changed:
                    texts = [self._changed_text(key, name == EMBED_FILE, source) for key in changed]
                    raise InputError(
                        f"--out {self.folder}: {what}: {', '.join(texts)}; give another folder, or delete it"
                    )
                if name == EMBED_FILE:
                    return (self.folder / EMBEDDINGS).exists()
        if not (self.folder / JOB).exists():
            self._allocate()
            replace_file(self.folder / IMAGES, source.table())
            replace_file(self.folder / JOB, json.dumps(text).encode())
        return False

    def _changed_text(self, key: str, is_finished: bool, source: Source) -> str:
        """A changed part of the job in words; of the images also which ones."""
        table = self.folder / (INDEX if is_finished else IMAGES)
        if key != "images_sha256" or not table.exists():
            return f"{key} changed"
        return f"other images ({changed_images(table, source, read_bad(self.folder).keys())})"

    def _take_lock(self) -> None:
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"--out {self.folder}: another process is embedding into it; wait for it") from None

    def _allocate(self) -> None:
        size = self._offset + 2 * self.num_rows * self.num_columns
        try:
            with open(self.folder / PART, "wb") as file:
                file.write(_header(self.num_rows, self.num_columns))
                os.posix_fallocate(file.fileno(), 0, size)
            (self.folder / STATES).write_bytes(bytes(self.num_rows))
        except OSError as error:
            raise write_failure(error, self.folder / PART, size) from error

    # ---- rows ----

    def open(self) -> None:
        """Open the part files for reading and writing. InputError where this rank does not see them."""
        try:
            if (self.folder / PART).exists():  # after a kill in ``finish`` the rows have their final name already
                self._data = os.open(self.folder / PART, os.O_RDWR)
            self._marks = os.open(self.folder / STATES, os.O_RDWR)
        except OSError as error:
            raise InputError(
                f"--out {self.folder}: this rank cannot open its files ({error.strerror}); all ranks need one folder"
            ) from None

    def states(self) -> NDArray[np.uint8]:
        """TODO, DONE or UNREADABLE per row, by all ranks, (N,)."""
        return np.frombuffer(os.pread(self._marks, self.num_rows, 0), np.uint8)

    def write(self, first: int, values: NDArray[np.float16], states: NDArray[np.uint8]) -> None:
        """Write rows from ``first`` on. They count as done after the next sync, at most SYNC_SECONDS later."""
        try:
            _write_all(self._data, values.tobytes(), self._offset + 2 * first * self.num_columns)
            self.waiting.append((first, states.tobytes()))
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.sync()
        except OSError as error:
            raise write_failure(error, self.folder / PART, values.nbytes) from error

    def sync(self) -> None:
        """Wait until all rows written are on the disk, then mark them: a mark never precedes its row."""
        if self.waiting:
            os.fsync(self._data)
            for first, states in self.waiting:
                _write_all(self._marks, states, first)
            self.waiting = []
        self._synced = time.monotonic()

    def note_bad(self, path: str, reason: str) -> None:
        """Name an unreadable image in bad_images.txt."""
        line = f"{path}\t{reason}\n".encode("utf-8", "surrogateescape")
        with open(self.folder / BAD, "ab", buffering=0) as file:
            file.write(line)

    # ---- the end ----

    def finish(self, index: bytes, record: Mapping[str, Any]) -> None:
        """Write the final files: index.parquet, embeddings.npy without unreadable rows, embed.json last."""
        states = self.states()
        replace_file(self.folder / INDEX, index)
        if (self.folder / PART).exists():
            if (states == UNREADABLE).any():
                self._compact(np.flatnonzero(states == DONE))
            else:
                os.replace(self.folder / PART, self.folder / EMBEDDINGS)
        replace_file(self.folder / EMBED_FILE, (json.dumps(record, indent=2) + "\n").encode())
        for name in (PART, STATES, JOB, IMAGES):
            (self.folder / name).unlink(missing_ok=True)

    def _compact(self, rows: NDArray[np.int64]) -> None:
        source = np.memmap(self.folder / PART, "<f2", "r", self._offset, (self.num_rows, self.num_columns))
        pieces = (source[rows[first : first + COPY_ROWS]].tobytes() for first in range(0, len(rows), COPY_ROWS))
        header = _header(len(rows), self.num_columns)
        size = len(header) + 2 * len(rows) * self.num_columns
        replace_file_in_parts(self.folder / EMBEDDINGS, (part for parts in ((header,), pieces) for part in parts), size)

    def close(self) -> None:
        """Close all files and give the folder back."""
        for handle in (self._data, self._marks, self._lock):
            if handle >= 0:
                os.close(handle)
        self._lock = self._data = self._marks = -1


def read_bad(folder: Path) -> dict[str, str]:
    """Path -> reason of each unreadable image, in the order of the file."""
    file = folder / BAD
    text = file.read_bytes().decode("utf-8", "surrogateescape") if file.exists() else ""
    return dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged; delete the folder and embed again")
    return content


def _header(num_rows: int, num_columns: int) -> bytes:
    class Sink(bytearray):
        def write(self, data: bytes) -> None:
            self.extend(data)

    sink = Sink()
    about = {"descr": "<f2", "fortran_order": False, "shape": (num_rows, num_columns)}
    npy_format.write_array_header_1_0(sink, about)
    return bytes(sink)


def _write_all(handle: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], offset + done)


def too_many(num_bad: int, num_rows: int, max_bad: float, bad: Sequence[tuple[str, str]], folder: Path) -> RunError:
    """The error for more unreadable images than allowed; bad: some of them, with their reasons."""
    path, reason = bad[0]
    return RunError(
        f"{num_bad:,} of {num_rows:,} images cannot be read, more than --max-bad={max_bad:g} allows; the first: "
        f"{path}: {reason}; {folder / BAD} lists all; replace them, or raise --max-bad to leave them out"
    )
