"""Types and checks of arguments that several commands have."""

import argparse
from pathlib import Path

from fastcpc.errors import InputError

TABLES = (".csv", ".parquet")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def probability(text: str) -> float:
    """A number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [0, 1]")
    return value


def table_file(text: str) -> Path:
    """The name of a table: .csv or .parquet."""
    if Path(text).suffix.lower() not in TABLES:
        raise argparse.ArgumentTypeError(f"{text}: unknown kind of file; use .csv or .parquet")
    return Path(text)


def new_file(path: Path, *, force: bool) -> None:
    """Check that a file can be written at path; InputError where one exists, unless force allows to replace it."""
    if path.is_dir():
        raise InputError(f"{path} is a folder that exists already; give a new name, or delete it first")
    if path.exists() and not force:
        raise InputError(f"{path} exists already; give another name, or --force to replace it")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder, so {path.name} cannot be written there")
