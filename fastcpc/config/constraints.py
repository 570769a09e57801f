"""Constraints of a single setting: type, choices, range."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

LARGEST_INTEGER = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from low to high; an open end is not part of the range."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def contains(self, value: float) -> bool:
        """Whether the value is in the range; never for NaN and inf."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and math.isfinite(value)

    @property
    def words(self) -> str:
        """Such as "above 0", "1 or more", "in [0, 1)"."""
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.low_open else f"{self.low:g} or more"
        return f"in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


def choices_of(field: "dataclasses.Field[Any]", kind: Any) -> tuple[str, ...]:
    """The texts that a setting may be; empty where it has no such list."""
    return get_args(kind) if get_origin(kind) is Literal else tuple(field.metadata["choices"] or ())


def value_problem(key: str, field: "dataclasses.Field[Any]", kind: Any, value: Any) -> str | None:
    """The error in the value of a setting, in one line that starts with its key; None where the value is right.

    key: dotted; field: of a section, from ``setting``; kind: its type: bool, int, float, str or a Literal of texts.
    """
    wrong = f"{key}={shown(value)}: must be {type_words(field, kind)}"
    choices = choices_of(field, kind)
    if choices:
        return None if isinstance(value, str) and value in choices else wrong
    if type(value) is not kind and not (kind is float and type(value) is int):
        return wrong
    if kind is str:
        return _text_problem(key, value)
    if kind is bool:
        return None
    limits: Range | None = field.metadata["allowed"]
    if not (abs(value) <= LARGEST_INTEGER if type(value) is int else math.isfinite(value)):
        return wrong
    if limits is not None and not limits.contains(value):
        return f"{key}={value}: must be {limits.words}"
    return None


def type_words(field: "dataclasses.Field[Any]", kind: Any) -> str:
    """Type, choices and range of a setting in words, such as "a number in (0, 1)"."""
    choices = choices_of(field, kind)
    if choices:
        return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    limits: Range | None = field.metadata["allowed"]
    return words if limits is None else f"{words} {limits.words}"


def shown(value: object) -> str:
    """A value from the user as one short line of printable text; quoted only where it would be unclear."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return f"an integer of {value.bit_length():,} bits"
    bare = isinstance(value, str) and value.isprintable() and value == value.strip() and value != ""
    text = str(value) if bare else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def did_you_mean(names: Sequence[str]) -> str:
    """The end of a message that suggests names; empty where there are no names."""
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def section_problems(prefix: str, section: Any) -> list[str]:
    """One line "key=value: what is allowed" per wrong setting of a section.

    prefix: of the keys, such as "train."; section: a dataclass of ``setting`` fields, or of sections.
    """
    types = field_types(type(section))
    problems = []
    for field in dataclasses.fields(section):
        kind, value = types[field.name], getattr(section, field.name)
        if dataclasses.is_dataclass(kind):  # a section of Config checks its own settings
            wanted = cast(type, kind)
            right = isinstance(value, wanted)
            problem = None if right else f"{field.name}={shown(value)}: must be a {wanted.__name__}"
        else:
            problem = value_problem(f"{prefix}{field.name}", field, kind, value)
        if problem is not None:
            problems.append(problem)
    return problems


def field_types(section: type) -> Mapping[str, Any]:
    """The type of each field of a dataclass, by name."""
    return get_type_hints(section)


def _text_problem(key: str, value: str) -> str | None:
    if "${" in value:
        return f"{key}={shown(value)}: ${{...}} is not expanded; give the value itself"
    if not value.isprintable():
        return f"{key}={shown(value)}: must be one line of printable text"
    return None
