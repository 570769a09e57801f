"""Finds the files that data.root names: a file, all files below a folder, or those that match a pattern.

Data sets in container files (shards, Parquet) read them, and their settings are checked with it. Files are sorted by
their path as text, so that the order of samples does not depend on the file system.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastcpc.errors import InputError

MAGIC = re.compile(r"[*?\[{]")
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBERS = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
MOST_FILES = 1_000_000  # of {0..N}


@dataclass(frozen=True)
class RootFiles:
    """Files by their sorted paths relative to base. is_folder: whether the setting names a folder, not files."""

    base: Path
    names: tuple[str, ...]
    is_folder: bool

    def path(self, name: str) -> str:
        """The path of a file by its name."""
        return os.path.join(self.base, name)


def root_folder(root: str) -> Path:
    """The folder of a data set: the one that ``root`` names, or that of the file or pattern that it names."""
    path = Path(root).expanduser()
    if os.path.lexists(path) or not MAGIC.search(root):
        return path.parent if path.is_file() else path
    parts = path.parts
    fixed = next(place for place, part in enumerate(parts) if MAGIC.search(part))
    return Path(*parts[:fixed]) if fixed else Path(".")


def find_root_files(setting: str, root: str, endings: Sequence[str]) -> RootFiles:
    """The files that ``root`` names; below a folder those with one of the endings (lower case), hidden ones left out.

    A pattern has * ? [] ** and {}, such as train-{0000..0127}.tar. InputError names the setting where there is no such
    file.
    """
    path, base = Path(root).expanduser(), root_folder(root)
    if path.is_dir():
        below = [os.path.relpath(file, base) for file in files_below(path)]
        names = [name for name in below if name.lower().endswith(tuple(endings))]
        return RootFiles(base, tuple(sorted(names)), True)
    if os.path.lexists(path):
        return RootFiles(base, (path.name,), False)
    if not MAGIC.search(root):
        raise InputError(f"{setting}={root}: no such file or folder")
    found: set[str] = set()
    for pattern in _without_braces(setting, str(path)):
        matches = [file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file)]
        if not matches:
            raise InputError(f"{setting}={root}: no file matches {pattern}")
        found.update(os.path.relpath(file, base) for file in matches)
    return RootFiles(base, tuple(sorted(found)), False)


def _without_braces(setting: str, pattern: str) -> Iterator[str]:
    """The patterns that one with {a,b} and {000..127} means."""
    braces = BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    numbers = NUMBERS.fullmatch(braces[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < MOST_FILES:
            raise InputError(f"{setting}: {braces[0]} must count upwards to at most {MOST_FILES:,} files; correct it")
        choices = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    for choice in choices:
        yield from _without_braces(setting, pattern[: braces.start()] + choice + pattern[braces.end() :])


def files_below(folder: Path) -> list[str]:
    """Sorted paths of all files below a folder, without hidden files. Links to folders are followed once."""
    return sorted(walk_files(folder))


def walk_files(folder: Path) -> Iterator[str]:
    """The paths of ``files_below`` in the order of the file system. InputError where a folder cannot be read."""
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None

    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (os.path.join(place, name) for name in files if not name.startswith("."))
        seen.add(real)
