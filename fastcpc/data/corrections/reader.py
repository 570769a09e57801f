"""Reads decisions from corrections.csv or from Label Studio's export, and checks them against the samples.

``engine/launch.py`` reads those of data.corrections, and fastcpc-clean those of --corrections. Each row must name a
sample by index or path and repeat its given label, so that a file of another data set is refused.
"""

import difflib
import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcpc.config.constraints import did_you_mean
from fastcpc.data.corrections.decisions import COLUMNS, DECISIONS, KEEP, RELABEL, REMOVE, Correction, KnownSamples
from fastcpc.data.corrections.label_studio import read_label_studio
from fastcpc.data.corrections.spreadsheet import original_texts
from fastcpc.data.labels.columns import plain_name
from fastcpc.data.labels.label_values import MISSING, WHOLE, is_whole, without_fraction
from fastcpc.data.labels.table_reader import TABLE_ENDINGS, read_bytes, read_table
from fastcpc.data.paths import same_name
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")

COLUMN_TEXT = f"the columns are {', '.join(COLUMNS)}"
OPTIONAL = ("index", "path", "label")
LABEL_STUDIO_COLUMN = plain_name("annotation_id")  # of its CSV export
NOT_TRAINED = -1  # a sample of a test part


@dataclass(frozen=True, slots=True)
class Row:
    """One decision as written. place: file and line. index, path: empty where the file does not have the column."""

    place: str
    index: str
    path: str
    given_label: str
    decision: str
    label: str


def read_corrections(file: str | Path, known: KnownSamples) -> tuple[Correction, ...]:
    """The decisions of a file in the order of the samples, each sample once.

    file: a table with COLUMNS, or the JSON export of Label Studio. A note goes to the log for each repair. Raises
    InputError with file, line, value and remedy for a row that does not fit the samples.
    """
    path = Path(file).expanduser()
    rows, notes = _rows_of(path)
    classes = _Classes(known)
    row_of = _Lookup(known)
    samples = [row_of(row) for row in rows]
    num_others = samples.count(NOT_TRAINED)
    if num_others:
        notes.append(f"{num_others:,} rows about images that are not for training left out")
        rows = [row for row, sample in zip(rows, samples, strict=True) if sample != NOT_TRAINED]
        samples = [sample for sample in samples if sample != NOT_TRAINED]
    classes.find_meaning(rows, samples)
    found: dict[int, tuple[Correction, str]] = {}
    repeated = relabelled_same = 0
    for row, sample in zip(rows, samples, strict=True):
        one = _correction(row, sample, known, classes)
        relabelled_same += row.decision == RELABEL and one.decision == KEEP
        before = found.setdefault(sample, (one, row.place))
        if before[0] != one:
            first = before[1][len(str(path)) + 1 :].strip()
            raise InputError(
                f"{row.place}: {known.names[sample][:80]!r} again, with decision {_words(one)}; line {first} has "
                f"{_words(before[0])}; keep one of the rows"
            )
        repeated += before[1] != row.place
    if repeated:
        notes.append(f"{repeated:,} row{'s' if repeated > 1 else ''} with a repeated decision left out")
    if relabelled_same:
        notes.append(f"{relabelled_same:,} relabelled to the given label read as keep")
    if notes := [note for note in (*notes, *classes.notes) if note]:
        logger.warning("%s: %s", path, "; ".join(notes))
    return tuple(found[sample][0] for sample in sorted(found))


def _rows_of(path: Path) -> tuple[list[Row], list[str]]:
    if path.suffix.lower() == ".json":
        rows, notes = read_label_studio(path, read_bytes(path))
        if not rows:
            raise InputError(f"{path}: no task has an annotation; annotate tasks in Label Studio and export again")
        return [Row(*cells) for cells in rows], notes
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise InputError(f"{path}: unknown kind of corrections; use .csv, .parquet, or Label Studio's .json")
    table = read_table(path)
    where = _places(path, table.header)
    absent = [name for name in COLUMNS if name not in where and name not in OPTIONAL]
    if not {"index", "path"} & where.keys():
        absent.insert(0, "index")
    if absent and LABEL_STUDIO_COLUMN in where:
        raise InputError(f"{path}: a table of Label Studio, without the given labels; export as JSON")
    if absent:
        raise InputError(f"{path}:1: no column {absent[0]!r}; {COLUMN_TEXT}")
    cells = {name: _texts(table.column(where[name])) if name in where else [""] * table.num_rows for name in COLUMNS}
    columns = zip(*(cells[name] for name in COLUMNS), strict=True)
    return [Row(table.place(row), *texts) for row, texts in enumerate(columns)], list(table.notes)


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """The place of each column by its plain name. InputError where two have one of COLUMNS."""
    where: dict[str, int] = {}
    for place, name in enumerate(header):
        first = where.setdefault(plain_name(name), place)
        if first != place and plain_name(name) in COLUMNS:
            raise InputError(
                f"{path}:1: {header[first]!r} and {name!r} are both the column {plain_name(name)!r}; rename one of them"
            )
    return where


def _texts(values: Sequence[Any]) -> list[str]:
    return ["" if value is None or value != value else str(value).strip() for value in values]


class _Lookup:
    """Finds the sample of a row by its index and its path."""

    def __init__(self, known: KnownSamples) -> None:
        self._known = known
        self._by_index = {index: row for row, index in enumerate(known.index_N.tolist())}
        self._by_path = {same_name(name.strip()): row for row, name in enumerate(known.names)}
        self._others = {same_name(name.strip()) for name in known.others} - self._by_path.keys()

    def __call__(self, row: Row) -> int:
        """The sample's position, or NOT_TRAINED. InputError where the row names no sample."""
        if self._others and not self._others.isdisjoint(_names(row.path)):
            return NOT_TRAINED
        by_path = next((self._by_path[name] for name in _names(row.path) if name in self._by_path), None)
        if not (row.index or row.path):
            raise InputError(f"{row.place}: neither index nor path; name the sample, or delete the row")
        if not row.index:
            if by_path is None:
                raise InputError(
                    f"{row.place}: {row.path[:80]!r} is no training sample's path ({self._known.what}); write paths "
                    f"as {self._known.names[0][:80]!r}"
                )
            return by_path
        if not is_whole(row.index):
            raise InputError(f"{row.place}: index {row.index[:40]!r} is not a whole number; correct the index")
        sample = self._by_index.get(int(without_fraction(row.index)))
        if sample is None:
            raise InputError(
                f"{row.place}: index {row.index[:40]} is no training sample's index ({self._known.what}); use the "
                "corrections of this data set"
            )
        name = self._known.names[sample]
        if row.path and same_name(name.strip()) not in _names(row.path):
            raise InputError(
                f"{row.place}: index {row.index} is {name[:80]!r}, not {row.path[:80]!r}; the file is of another data "
                "set or order; delete its column index to find samples by path"
            )
        return sample


def _names(cell: str) -> list[str]:
    return [same_name(text.strip()) for text in original_texts(cell)]


class _Classes:
    """Class numbers of labels as written. Numbers are class numbers, as in suspects.csv.

    Some data sets have other numbers as class names. There the given labels of the file show what its numbers mean.
    """

    def __init__(self, known: KnownSamples) -> None:
        self._known = known
        both = [*enumerate(known.class_ids), *enumerate(known.class_names)]
        self._number_of = {unicodedata.normalize("NFC", name): k for k, name in both}
        self._names_first = False
        self.notes: list[str] = []

    def find_meaning(self, rows: Iterable[Row], samples: Iterable[int]) -> None:
        """Decide whether numbers are class numbers or names of classes."""
        other = [name for name, k in self._number_of.items() if WHOLE.fullmatch(name) and int(name) != k]
        if not other:
            return
        pairs = [(row.given_label, int(self._known.given_N[sample])) for row, sample in zip(rows, samples, strict=True)]
        numbers_fit = all(is_whole(text) and int(without_fraction(text)) == given for text, given in pairs)
        self._names_first = not numbers_fit and all(self._number_of.get(text) == given for text, given in pairs)
        k = self._number_of[other[0]]
        meaning = "names" if self._names_first else "numbers"
        self.notes.append(f"labels are class {meaning}: class number {k} has the name {other[0]!r}")

    def __call__(self, text: str, place: str, column: str) -> int:
        """The class number of a text. InputError where it names no class."""
        names = [unicodedata.normalize("NFC", one) for one in original_texts(text)]
        number = next((self._number_of[name] for name in names if name in self._number_of), None)
        if number is not None and (self._names_first or not is_whole(text)):
            return number
        num_classes = len(self._known.class_names)
        if is_whole(text):
            number = int(without_fraction(text))
            if 0 <= number < num_classes:
                return number
            raise InputError(
                f"{place}: {column} {text[:40]} is outside 0..{num_classes - 1}; use a class of this data set"
            )
        near = did_you_mean(difflib.get_close_matches(names[-1], self._number_of, n=1, cutoff=0.5))
        raise InputError(
            f"{place}: {column} {text[:40]!r} is no class name{near}; write a class name or a number in "
            f"0..{num_classes - 1}"
        )


def _correction(row: Row, sample: int, known: KnownSamples, classes: Callable[[str, str, str], int]) -> Correction:
    given, name = int(known.given_N[sample]), known.names[sample]
    if row.decision not in DECISIONS:
        near = did_you_mean(difflib.get_close_matches(row.decision.lower(), DECISIONS, n=1))
        raise InputError(f"{row.place}: decision {row.decision[:40]!r}{near}; write relabel, keep or remove")
    if not _is_given(row.given_label, known):
        raise InputError(f"{row.place}: no given_label; write the label that {known.what} has")
    if classes(row.given_label, row.place, "given_label") != given:
        raise InputError(
            f"{row.place}: given_label {row.given_label[:40]} where {known.what} has {given} "
            f"({known.class_names[given][:40]!r}) for {name[:80]!r}; the file is of other labels, use the one of these"
        )
    index = int(known.index_N[sample])
    has_label = _is_given(row.label, known)
    if row.decision == REMOVE:
        return Correction(index, name, given, REMOVE, -1)
    if row.decision == RELABEL and not has_label:
        raise InputError(f"{row.place}: decision relabel without a label; write the new class in column label")
    label = classes(row.label, row.place, "label") if has_label else given
    if row.decision == KEEP and label != given:
        raise InputError(
            f"{row.place}: decision keep with label {row.label[:40]}, and the given label is {given}; write relabel, "
            "or no label"
        )
    return Correction(index, name, given, KEEP if label == given else RELABEL, label)


def _is_given(text: str, known: KnownSamples) -> bool:
    return text not in MISSING or text in known.class_names


def _words(one: Correction) -> str:
    return f"{one.decision} to {one.label}" if one.decision == RELABEL else one.decision
