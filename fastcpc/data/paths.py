"""Canonical names of image files: one form for the spellings that name the same file.

Lists, label files, indexes and fingerprints compare names by ``same_name``. Files are opened by their original names.
"""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path


def same_name(path: str) -> str:
    """The canonical form of a path: two names of one file give equal texts.

    Unicode is composed (NFC), because macOS decomposes it (NFD). Parts "." and empty parts are dropped: "./a//b" is
    "a/b". Parts ".." stay, because a link may precede them. A backslash stays: it is a letter of a name on Linux.
    """
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    if "//" in path or "./" in path or path.endswith(("/", "/.")):
        root = "/" if path.startswith("/") else ""
        path = root + "/".join(part for part in path.split("/") if part not in ("", "."))
    return path


def spelled_on_disk(base: str | Path, names: Sequence[str]) -> list[str]:
    """The names below base as the file system spells them, where only the Unicode form differs.

    A name that exists is kept, and a name that no file has in any form. Names without composed letters are not looked
    up, so that a list of a million plain names costs no access to the disk.
    """
    folders: dict[str, dict[str, str]] = {}
    return [name if name.isascii() else _spelled(str(base), name, folders) for name in names]


def _spelled(base: str, name: str, folders: dict[str, dict[str, str]]) -> str:
    """One name. folders: entries of the folders that were read."""
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFD", name):
        return name
    if os.path.lexists(os.path.join(base, name)):
        return name
    found: list[str] = []
    place = "/" if name.startswith("/") else base
    for part in name.split("/"):
        spelling: str | None = part
        if part not in ("", ".", ".."):
            if place not in folders:
                folders[place] = _entries(place)
            spelling = folders[place].get(unicodedata.normalize("NFC", part))
        if spelling is None:
            return name
        found.append(spelling)
        place = os.path.join(place, spelling)
    return "/".join(found)


def _entries(folder: str) -> dict[str, str]:
    """Name in NFC -> name on disk, of all entries of a folder; empty where it cannot be read."""
    try:
        return {unicodedata.normalize("NFC", entry): entry for entry in os.listdir(folder)}
    except OSError:
        return {}
