"""Turns the labels of a label file into class numbers of a data set whose classes are given."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.label_values import WHOLE, find_missing, is_whole, refuse_missing, text_of, without_fraction
from fastcpc.data.labels.table_reader import Place
from fastcpc.errors import InputError

MEANING = "write class names, or order the classes by number (data.classes)"


def class_numbers(
    values: Sequence[Any], place: Place, dataset: Dataset, from_array: bool, optional: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Labels as int64 (N,), and notes on what was repaired.

    values: whole numbers, texts, floats, Booleans or None. place: file and line of a row. dataset: its class names and
    ids are accepted as labels. from_array: the numbers are certain to be class numbers, not names of class folders.
    optional: a missing label is -1 instead of an error. Raises InputError with the first line that is wrong.
    """
    if set(map(type, values)) == {int} and not optional:
        numbers = _plain_numbers(values)
        if numbers is not None and _is_in_range(numbers, dataset) and (from_array or not _other_numbers(dataset)):
            return numbers, []
    texts = [text_of(value) for value in values]
    if any(type(value) is bool for value in values) and not all(type(value) is bool for value in values):
        texts = [
            f"{text} (Boolean)" if type(value) is bool else text for text, value in zip(texts, values, strict=True)
        ]
    distinct = set(texts)
    classes = _names(dataset)
    missing = find_missing(distinct, classes)
    if not optional:
        refuse_missing(texts, missing, place, "give these images a label: a label file has one per training image")
    number_of, notes = _meaning(distinct - missing, classes, dataset, from_array, lambda t: place(texts.index(t)))
    number_of |= dict.fromkeys(missing, -1)
    return np.array([number_of[text] for text in texts], np.int64), notes


def _plain_numbers(values: Sequence[Any]) -> np.ndarray | None:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return None


def _is_in_range(numbers: np.ndarray, dataset: Dataset) -> bool:
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < dataset.num_classes)


def _names(dataset: Dataset) -> dict[str, int]:
    """Class number of each class name and id."""
    names = (*dataset.class_names, *dataset.class_ids)
    numbers = (*range(dataset.num_classes), *range(len(dataset.class_ids)))
    return {unicodedata.normalize("NFC", name): k for name, k in zip(names, numbers, strict=True)}


def _other_numbers(dataset: Dataset) -> dict[str, int]:
    """The classes whose name is a number, but not their own number."""
    return {name: k for name, k in _names(dataset).items() if WHOLE.fullmatch(name) and int(name) != k}


def _meaning(
    distinct: set[str], classes: dict[str, int], dataset: Dataset, from_array: bool, place_of: Callable[[str], str]
) -> tuple[dict[str, int], list[str]]:
    """Class number of each label as written."""
    composed = {text: unicodedata.normalize("NFC", text) for text in distinct}
    are_whole = all(map(is_whole, distinct))
    are_names = all(text in classes for text in composed.values())
    if are_names and not are_whole:
        return {text: classes[name] for text, name in composed.items()}, []
    if {text.lower() for text in distinct} <= {"true", "false"} and dataset.num_classes == 2:
        return {text: int(text.lower() == "true") for text in distinct}, ["False read as class 0, True as class 1"]
    if not are_whole:
        wrong = [text for text in distinct if not is_whole(text)]
        unnamed = [text for text in wrong if composed[text] not in classes] or wrong
        raise _not_a_class(min(unnamed, key=lambda text: _row(place_of(text))), classes, dataset, place_of)
    number_of = {text: int(without_fraction(text)) for text in distinct}
    outside = {text for text, number in number_of.items() if not 0 <= number < dataset.num_classes}
    other = {} if from_array else _other_numbers(dataset)
    by_name = {text: str(number) for text, number in number_of.items()}
    if other and all(name in classes for name in by_name.values()):
        differs = [text for text, name in by_name.items() if classes[name] != number_of[text]]
        if outside:
            named = {text: classes[name] for text, name in by_name.items()}
            return named, [f"labels are class names: {_example(dataset)}"]
        if differs:
            text = min(differs, key=lambda text: _row(place_of(text)))
            raise InputError(
                f"{place_of(text)}: label {text!r} is class name {by_name[text]!r} (class {classes[by_name[text]]}) or "
                f"class number {number_of[text]}; {MEANING}"
            )
    if outside:
        raise _outside(outside, number_of, dataset, place_of)
    notes = [f"labels are class numbers: {_example(dataset)}"] if from_array and _other_numbers(dataset) else []
    read = sorted(text for text in distinct if text != str(number_of[text]))
    if read:
        notes.append(f"labels like {read[0]} read as {number_of[read[0]]}")
    return number_of, notes


def _example(dataset: Dataset) -> str:
    name, k = next(iter(_other_numbers(dataset).items()))
    return f"class number {k} has the name {name!r}"


def _row(place: str) -> tuple[int, int]:
    """Order of places in a file."""
    digits = place[len(place.rstrip("0123456789")) :]
    return len(digits), int(digits or 0)


def _not_a_class(text: str, classes: dict[str, int], dataset: Dataset, place_of: Callable[[str], str]) -> InputError:
    near = next((name for name in classes if name.casefold() == text.casefold()), None)
    hint = f"write {near!r}" if near is not None else f"write a class name or a number in 0..{dataset.num_classes - 1}"
    return InputError(f"{place_of(text)}: label {text[:40]!r} is neither a class number nor a class name; {hint}")


def _outside(
    outside: set[str], number_of: dict[str, int], dataset: Dataset, place_of: Callable[[str], str]
) -> InputError:
    text = min(outside, key=lambda text: _row(place_of(text)))
    largest = dataset.num_classes - 1
    if set(map(number_of.__getitem__, outside)) == {dataset.num_classes} and min(number_of.values()) >= 1:
        return InputError(
            f"{place_of(text)}: label {text} is outside 0..{largest}: labels look 1-based; subtract 1 from each label"
        )
    return InputError(f"{place_of(text)}: label {text} is outside 0..{largest}; use the classes of {dataset.name}")
