"""Brings labels into one form: which spellings are one class, which are missing, and which are ambiguous.

All functions work on the distinct labels of a file. A file has few of them, also where it has a million rows.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastcpc.errors import InputError

# What pandas, R, databases and spreadsheets write for "no value".
MISSING = frozenset(
    (
        *("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null"),
        *("None", "NaT", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    )
)
WHOLE = re.compile(r"-?[0-9]{1,18}")
WHOLE_FLOAT = re.compile(r"(-?[0-9]{1,18})\.0*")

Say = Callable[[str, str], InputError]  # (label, problem; what to do) -> the error, with the label's first line


def texts_of(values: Sequence[Any]) -> list[str]:
    """Labels as stripped texts; "" where a value is missing. Each value is text, a number, a Boolean or None."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return [value.strip() for value in values]
    return [text_of(value) for value in values]


def text_of(value: Any) -> str:
    """One label as text, on one line and not longer than a name."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    return str(value)


def is_whole(text: str) -> bool:
    """Whether a label is a whole number, also written as 3.0."""
    return WHOLE.fullmatch(text) is not None or WHOLE_FLOAT.fullmatch(text) is not None


def without_fraction(text: str) -> str:
    """3.0 as 3; other labels unchanged."""
    match = WHOLE_FLOAT.fullmatch(text)
    if match is None:
        return text
    return match[1] if match[1] != "-0" else "0"


def find_missing(distinct: Iterable[str], classes: Iterable[str] = ()) -> set[str]:
    """The labels that are no labels: MISSING, and -1 among whole numbers. classes: names that are labels anyway."""
    left = set(distinct) - set(classes)
    found = left & MISSING
    rest = left - found
    if rest and all(map(is_whole, rest)):
        found |= {text for text in rest if without_fraction(text) == "-1"}
    return found


def refuse_missing(texts: Sequence[str], missing: set[str], place: Callable[[int], str], remedy: str) -> None:
    """InputError that counts the rows without label and names the first."""
    if missing:
        rows = [row for row, text in enumerate(texts) if text in missing]
        value = f"{texts[rows[0]]!r}" if texts[rows[0]] else "empty"
        count = f"{len(rows):,} row{'s' if len(rows) > 1 else ''} in all"
        raise InputError(f"{place(rows[0])}: no label ({value}, {count}); {remedy}")


def one_form(distinct: Iterable[str], say: Say) -> tuple[dict[str, str], list[str]]:
    """The form of each label in which equal labels are equal, and notes on what was merged.

    3.0 becomes 3 where all labels are whole numbers or where both occur. NFD becomes NFC where both occur. Leading
    zeros stay where all labels have one width. Raises InputError for labels that else differ only in form.
    """
    texts = sorted(distinct)
    form = {text: text for text in texts}
    notes = []
    composed = [text for text in texts if unicodedata.normalize("NFC", text) != text]
    for text in composed:
        if unicodedata.normalize("NFC", text) in form:
            form[text] = unicodedata.normalize("NFC", text)
            notes.append(f"label {form[text]!r} in two Unicode forms read as one")
    all_whole = all(map(is_whole, texts))
    whole = {without_fraction(text) for text in texts if WHOLE_FLOAT.fullmatch(text)}
    for text in texts:
        if WHOLE_FLOAT.fullmatch(text) and (all_whole or whole & form.keys()):
            form[text] = without_fraction(text)
    read = [text for text in texts if form[text] != text and WHOLE_FLOAT.fullmatch(text)]
    if read:
        notes.append(f"labels like {read[0]} read as {form[read[0]]}")
    left = sorted(set(form.values()))
    if all_whole:
        _check_zeros(left, form, say)
    else:
        _check_look_alikes(left, form, say)
    return form, notes


def _check_zeros(texts: list[str], form: dict[str, str], say: Say) -> None:
    """Leading zeros are accepted where they fill all labels up to one width."""
    width = min(map(len, texts), default=0)
    odd = next((text for text in texts if text != f"{int(text):0{width}d}"), None)
    if odd is not None:
        other = next((text for text in texts if text != odd), "0")
        raise say(_written(odd, form), f"and label {other!r} have other leading zeros; write all labels in one form")


def _check_look_alikes(texts: list[str], form: dict[str, str], say: Say) -> None:
    """Labels that differ only in case, inner blanks, leading zeros or the width of letters are refused."""
    first: dict[str, str] = {}
    for text in texts:
        key = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        if is_whole(key):
            key = str(int(without_fraction(key)))
        other = first.setdefault(key, text)
        if other != text:
            how = "in case" if text.lower() == other.lower() else "in form"
            raise say(
                _written(text, form),
                f"differs from label {other!r} only {how}; write one class in one form, or name both in data.classes",
            )


def _written(text: str, form: dict[str, str]) -> str:
    """How the file has a label in this form."""
    return next(written for written, read in form.items() if read == text)


def class_order(form: dict[str, str]) -> tuple[list[str], str]:
    """Labels in the order of their classes, numbers by value and names by letter, and a note on the order.

    form: of ``one_form``. The note says where numbers in another form than 0, 1, 2 are not in the order of their texts.
    """
    texts = sorted(set(form.values()))
    try:
        values = {text: float(text) for text in texts if text.isascii() and text[:1] in "-.0123456789"}
    except ValueError:
        return texts, ""
    if len(values) < len(texts) or not all(map(math.isfinite, values.values())):
        return texts, ""
    ordered = sorted(texts, key=lambda text: (int(text) if WHOLE.fullmatch(text) else values[text], text))
    before = list(dict.fromkeys(form[text] for text in sorted(form)))
    is_plain = all(WHOLE.fullmatch(text) and text == str(int(text)) for text in form)
    return ordered, "" if is_plain or before == ordered else "classes in numeric order, not in that of their texts"
