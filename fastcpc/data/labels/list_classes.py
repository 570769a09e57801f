"""The classes of an image list, from its labels or from data.classes, and the class number of each label."""

import unicodedata
from collections.abc import Mapping, Set
from dataclasses import dataclass

from fastcpc.data.labels.columns import is_number
from fastcpc.data.labels.label_values import (
    MISSING,
    WHOLE,
    Say,
    class_order,
    is_whole,
    one_form,
    without_fraction,
)


@dataclass(frozen=True)
class ListClasses:
    """ids: name of each class in the list. number_of: class number of each label as written. notes: for the user."""

    ids: tuple[str, ...]
    number_of: dict[str, int]
    notes: list[str]


def own_classes(labels: Set[str], trusted: Set[str], train: Set[str], num_rows: int, say: Say) -> ListClasses:
    """Classes that the labels of the training rows define.

    labels: the distinct labels of all rows. trusted: distinct true labels. train: labels of the training rows. Whole
    numbers are class numbers from 0 or from 1; other labels are sorted, numbers by value. Raises the error of ``say``
    for labels that could mean two classes.
    """
    form, notes = one_form(labels | trusted, say)
    _check_fractions(labels | trusted, say)
    ids, order_note = class_order({text: form[text] for text in train})
    if all(WHOLE.fullmatch(text) and text == str(int(text)) for text in ids):
        ids, count_note = _numbers(ids, {form[text] for text in labels | trusted}, form, num_rows, say)
        notes.append(count_note)
    elif sorted(text.lower() for text in ids) == ["false", "true"]:
        notes.append(f"{ids[0]} and {ids[1]} are two classes")
    notes.append(order_note)
    if len(ids) < 2:
        raise say(min(train), "is the only class; at least two are required")
    number = {text: k for k, text in enumerate(ids)}
    for text in (*sorted(labels), *sorted(trusted)):
        if form[text] not in number:
            raise say(text, "is a class without training images; add training images of it, or correct the label")
    return ListClasses(tuple(ids), {text: number[form[text]] for text in labels | trusted}, notes)


def _check_fractions(labels: Set[str], say: Say) -> None:
    """Refuse 0.5 or 1e3 among whole numbers: a wrong value would become a class."""
    odd = sorted(text for text in labels if is_number(text) and not is_whole(text))
    if odd and all(map(is_number, labels)) and len(odd) < len(labels):
        raise say(odd[0], "is not a whole number, and other labels are; correct it, or name both in data.classes")


def _numbers(train: list[str], every: set[str], form: dict[str, str], num_rows: int, say: Say) -> tuple[list[str], str]:
    """The class ids of labels that count from 0 or 1, without gaps, and a note where they count from 1."""

    def written(number: int) -> str:
        return next(text for text, read in form.items() if read == str(number))

    numbers = [int(text) for text in every if WHOLE.fullmatch(text)]
    low, high = min(numbers), max(map(int, train))
    if low < 0:
        raise say(written(low), "is negative; number the classes from 0, or name them in data.classes")
    if high > num_rows:
        raise say(written(high), "exceeds the number of images; number the classes from 0 or 1 without gaps")
    first = 1 if low == 1 else 0
    return [str(k) for k in range(first, high + 1)], "labels count from 1: label 1 is class 0" if first else ""


def known_classes(labels: Set[str], known: list[tuple[str, str]], say: Say) -> ListClasses:
    """Classes of data.classes: (id, name) each. Labels are ids, names, or numbers from 0.

    Where an id or a name is another number than that of its class, labels are ids and names only.
    """
    named = {text: k for k, entry in enumerate(known) for text in entry[::-1]}
    class_of = ({str(k): k for k in range(len(known))} if numbers_count(named) else {}) | named
    composed = {unicodedata.normalize("NFC", text): k for text, k in class_of.items()}
    number_of: dict[str, int] = {}
    read = []
    for text in sorted(labels):
        found = class_of.get(text, composed.get(unicodedata.normalize("NFC", text)))
        if found is None and text not in MISSING and is_whole(text):
            found = class_of.get(without_fraction(text))
            read += [text] if found is not None else []
        if found is None:
            raise say(text, _unknown(text, labels, class_of, len(known)))
        number_of[text] = found
    note = f"labels like {read[0]} read as {without_fraction(read[0])}" if read else ""
    return ListClasses(tuple(wnid for wnid, _ in known), number_of, [note])


def numbers_count(class_of: Mapping[str, int]) -> bool:
    """Whether class numbers can be labels beside names: no name is the number of another class, such as 1, 2, 3."""
    own = {int(without_fraction(text)): k for text, k in class_of.items() if is_whole(text)}
    return all(own.get(k, k) == k for k in class_of.values())


def _unknown(text: str, labels: Set[str], class_of: dict[str, int], num_classes: int) -> str:
    """Why a label is no class of data.classes, and what to do."""
    if all(map(is_whole, labels)) and without_fraction(text) == str(num_classes) and not {"0", "0.0"} & set(labels):
        return f"is outside 0..{num_classes - 1}: labels look 1-based; subtract 1 from each, or write class names"
    near = next((name for name in class_of if name.casefold() == text.casefold()), None)
    if near is not None:
        return f"differs from class {near!r} of data.classes only in case; write it in that form"
    return "is no class of data.classes; add it there, or correct the label"
