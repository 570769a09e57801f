"""Decisions about training samples: relabel, keep or remove; and corrections.csv, the table of them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fastcpc.arrays import Ints
from fastcpc.data.corrections.spreadsheet import safe_text

Decision = Literal["relabel", "keep", "remove"]
RELABEL, KEEP, REMOVE = DECISIONS = get_args(Decision)
COLUMNS = ("index", "path", "given_label", "decision", "label")


@dataclass(frozen=True, slots=True)
class Correction:
    """The decision about one sample.

    index: its position in the official order of the data set. path: its name. given: its given label before any
    correction. label: the label to train with; -1 where the sample is removed.
    """

    index: int
    path: str
    given: int
    decision: Decision
    label: int


@dataclass(frozen=True)
class KnownSamples:
    """The training samples that corrections may refer to. Entry i of index_N, names and given_N is one sample.

    index_N: int64 (N,), distinct positions in the official order. given_N: int64 (N,), labels before any correction.
    what: where they come from, for messages. others: names of images that are not for training; rows about them are
    left out.
    """

    index_N: Ints
    names: Sequence[str]
    given_N: Ints
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    what: str
    others: frozenset[str] = frozenset()


def corrections_csv(corrections: Sequence[Correction]) -> bytes:
    """The content of corrections.csv: labels are class numbers; only relabelled samples have a label."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for one in corrections:
        label = one.label if one.decision == RELABEL else ""
        writer.writerow((one.index, safe_text(one.path), one.given, one.decision, label))
    return buffer.getvalue().encode()


def describe(corrections: Sequence[Correction]) -> str:
    """The number of decisions of each kind, in words."""
    counts = {decision: sum(one.decision == decision for one in corrections) for decision in DECISIONS}
    return (
        f"{len(corrections):,} decision{'' if len(corrections) == 1 else 's'} ({counts[RELABEL]:,} relabelled, "
        f"{counts[KEEP]:,} kept, {counts[REMOVE]:,} removed)"
    )
