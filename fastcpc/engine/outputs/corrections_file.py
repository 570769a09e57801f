"""applied_corrections.csv: the decisions that a run was trained with, in its folder.

The file of data.corrections may move or grow after the run. Commands that read the run use this copy.
"""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from fastcpc.atomic_io import replace_file
from fastcpc.config.schema import Config
from fastcpc.data.corrections.decisions import COLUMNS, RELABEL, REMOVE, Correction, Decision, corrections_csv
from fastcpc.data.corrections.spreadsheet import original_texts

APPLIED_FILE = "applied_corrections.csv"


def write_applied(folder: Path, corrections: Sequence[Correction]) -> None:
    """Write the copy of a run's decisions; a run without any has no such file. RunError on a failed write."""
    if corrections:
        replace_file(folder / APPLIED_FILE, corrections_csv(corrections))
    else:
        (folder / APPLIED_FILE).unlink(missing_ok=True)


def read_applied(folder: Path) -> tuple[Correction, ...]:
    """The decisions that ``write_applied`` wrote. ValueError in one line where the file is missing or damaged."""
    try:
        with (folder / APPLIED_FILE).open(newline="", encoding="utf-8") as file:
            rows = [tuple(row[name] for name in COLUMNS) for row in csv.DictReader(file)]
        return tuple(_correction(*row) for row in rows)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"is no table of decisions ({' '.join(str(error).split())[:80]})") from None


def _correction(index: str, path: str, given: str, decision: str, label: str) -> Correction:
    kept = -1 if decision == REMOVE else int(given)
    number = int(label) if decision == RELABEL else kept
    return Correction(int(index), original_texts(path)[-1], int(given), cast(Decision, decision), number)


def with_applied(config: Config, folder: Path) -> Config:
    """The settings of a run, with data.corrections as the copy in its folder."""
    if not config.data.corrections or not (folder / APPLIED_FILE).is_file():
        return config
    return replace(config, data=replace(config.data, corrections=str(folder / APPLIED_FILE)))
