"""The parts of every section: ``setting`` for a field, ``Section`` for the class, and the sources of defaults."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from fastcpc.config.constraints import Range, section_problems
from fastcpc.errors import InputError

DIVIDEMIX = "DivideMix"
AUGDMIX = "AugDMix (Nishi et al. 2021)"
CPC = "CPC, arXiv version"
OURS = "fastcpc"


def setting(
    default: Any,
    meaning: str,
    source: str = OURS,
    allowed: Range | None = None,
    choices: Mapping[str, Any] | None = None,
) -> Any:
    """A dataclass field with its meaning for ``--help``, the source of its default, and its range.

    choices: the texts that are allowed, where a registry may add some; else the type has them, as a Literal.
    """
    about = {"meaning": meaning, "source": source, "allowed": allowed, "choices": choices}
    return field(default=default, metadata=about)


class Section:
    """Base of all sections. Raises InputError for values of the wrong type or out of range, one line per setting."""

    def __post_init__(self) -> None:
        name = type(self).__name__.removesuffix("Config").lower()
        problems = section_problems(f"{name}." if name else "", self)
        if problems:
            raise InputError("\n".join(problems))
