"""Writes on file systems that cannot sync folders, and in folders that became read-only."""

import errno
import logging
import os
import stat
from pathlib import Path

import pytest

from fastcpc import atomic_io
from fastcpc.atomic_io import replace_file, sync_folder
from fastcpc.errors import RunError


def folders_raise(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """fsync of a folder raises this error, fsync of a file works."""
    honest = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        honest(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_folders_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    folders_raise(monkeypatch, number)
    monkeypatch.setattr(atomic_io, "devices_warned_about", set())
    with caplog.at_level(logging.WARNING, "fastcpc"):
        for content in (b"one", b"two"):
            replace_file(tmp_path / "file", content)
            sync_folder(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"two"
    assert caplog.text.count("this file system cannot sync folders") == 1  # said once per file system


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_real_errors_of_a_folder_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folders_raise(monkeypatch, number)
    with pytest.raises(RunError, match="cannot write"):
        replace_file(tmp_path / "file", b"content")


def test_a_clean_up_that_fails_does_not_hide_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(RunError, match=r"cannot write .*file: Read-only file system; fix this"):
        replace_file(tmp_path / "file", b"content")
