"""Finds rows of a table that name one image again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastcpc.data.labels.table_reader import Place
from fastcpc.errors import InputError

# The texts of a column, and what each text means.
Meaning = tuple[Sequence[str], Mapping[str, Any]]


def first_rows(
    names: Sequence[str], columns: Sequence[Meaning], place: Place, shown: Callable[[int], str]
) -> tuple[Sequence[int], str]:
    """The rows that name an image for the first time, and a note on the others.

    names: canonical name per row. columns: what repeated rows must agree on. Raises InputError with both places where
    they do not. place, shown: file and line, and the name as written, of a row.
    """
    if len(set(names)) == len(names):
        return range(len(names)), ""
    first: dict[str, int] = {}
    kept = []
    for row, name in enumerate(names):
        before = first.setdefault(name, row)
        if before == row:
            kept.append(row)
            continue
        for texts, meaning in columns:
            if meaning[texts[row]] != meaning[texts[before]]:
                line = place(before)[len(place(before).rpartition(":")[0]) + 1 :].strip()
                line = f"line {line}" if line.isdigit() else line
                raise InputError(
                    f"{place(row)}: {shown(row)!r} again, with {texts[row][:40]!r}; {line} gives it "
                    f"{texts[before][:40]!r}; keep one of the rows"
                )
    num = len(names) - len(kept)
    return (
        kept,
        f"{num:,} row{'s' if num > 1 else ''} that repeat{'' if num > 1 else 's'} an image and its label left out",
    )
