"""Reads byte ranges of container files, from several threads and processes at once.

A process opens a file on its first read and keeps at most MOST_OPEN files open. ``os.pread`` has no position, so
threads share a handle. A file that has changed since it was indexed is an error: its offsets would give other images.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

from fastcpc.errors import RunError

MOST_OPEN = 64


@dataclass(frozen=True, slots=True)
class ContainerFile:
    """A container file as it was when it was indexed. num_bytes, mtime_ns: of the whole file."""

    path: str
    num_bytes: int
    mtime_ns: int


def container_file(path: str) -> ContainerFile:
    """The present state of a file. OSError where there is no such file."""
    found = os.stat(path)
    return ContainerFile(path, found.st_size, found.st_mtime_ns)


class _Handle:
    """An open file. It is closed when no thread uses it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


_open: OrderedDict[ContainerFile, _Handle] = OrderedDict()
_lock = threading.Lock()


def read_range(file: ContainerFile, offset: int, size: int) -> bytes:
    """The bytes at offset; fewer only at the end of the file. OSError, or RunError where the file has changed."""
    handle = _handle(file)
    content = os.pread(handle.number, size, offset)
    while len(content) < size:  # one call reads at most 2 GiB
        more = os.pread(handle.number, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


def _handle(file: ContainerFile) -> _Handle:
    with _lock:
        handle = _open.get(file)
        if handle is None:
            handle = _Handle(file.path)
            found = os.fstat(handle.number)
            if (found.st_size, found.st_mtime_ns) != (file.num_bytes, file.mtime_ns):
                raise RunError(f"{file.path}: has changed since this command read its index; start the command again")
            _open[file] = handle
            if len(_open) > MOST_OPEN:
                _open.popitem(last=False)
        else:
            _open.move_to_end(file)
    return handle
