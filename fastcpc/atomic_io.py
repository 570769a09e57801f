"""Writes that are whole or not there: a temporary name beside the target, fsync, rename, fsync of the folder."""

import errno
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fastcpc.errors import RunError

logger = logging.getLogger("fastcpc")

# EFBIG: the process's own file size limit (ulimit -f), which reads as a full disk to a user as well.
_FULL = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "file size limit",
}

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # what fsync of a folder then raises


def replace_file(path: Path, data: bytes) -> None:
    """Put data under path in one step; RunError when it cannot be written, and then the old file is as it was."""
    replace_file_in_parts(path, (data,), len(data))


def replace_file_in_parts(path: Path, parts: Iterable[bytes], num_bytes: int) -> None:
    """As ``replace_file`` for what is too large to be held at once; num_bytes: of all parts, for the message."""
    try:
        with staged_file(path) as file:
            for part in parts:
                file.write(part)
    except OSError as error:
        raise write_failure(error, path, num_bytes) from error


@contextmanager
def staged_file(path: Path, staging: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which gets the name path when the block ends. After an error it is removed.

    staging: its name until then, in the same folder. Empty: a name of this process. OSError as the system raises it.
    """
    staging = staging or path.parent / f".{path.name}.tmp-{os.getpid()}"
    try:
        with open(staging, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # in a folder that became read-only, the first error is the one to report
            staging.unlink(missing_ok=True)
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk; OSError as the system raises it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, so that a rename outlives a power cut.

    Some file systems (SMB, FUSE) cannot do this. There the write continues without it, and the log says so once.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        _warn_no_folder_sync(os.stat(path).st_dev, path, error.strerror)
    finally:
        os.close(handle)


devices_warned_about: set[int] = set()


def _warn_no_folder_sync(device: int, path: Path, why: str | None) -> None:
    if device not in devices_warned_about:
        devices_warned_about.add(device)
        logger.warning(
            "%s: this file system cannot sync folders (%s); after a power cut the latest files may be missing",
            path,
            why,
        )


def write_failure(error: OSError, path: Path, num_bytes: int) -> RunError:
    """The one line for a write that failed; a full disk with what was needed and what is free."""
    if error.errno not in _FULL:
        return RunError(f"cannot write {path}: {error.strerror or error}; fix this and repeat the command to resume")
    return RunError(
        f"cannot write {path}: {_FULL[error.errno]} ({_size(num_bytes)} needed, {_free(path)} free); "
        "make room and repeat the command to resume"
    )


def _free(path: Path) -> str:
    try:
        return _size(shutil.disk_usage(next(parent for parent in path.parents if parent.exists())).free)
    except OSError:
        return "an unknown amount"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"
