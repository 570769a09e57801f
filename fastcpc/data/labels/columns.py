"""Decides which column of a table is what, by its name and its content.

Names are compared without case, and blanks and hyphens count as underscores: "File Name" is file_name.
"""

import re
from collections.abc import Sequence

from fastcpc.errors import InputError

PATH, LABEL, INDEX, SPLIT, TRUSTED = "path", "label", "index", "split", "trusted_label"
# Other names of each role that are accepted, with a note.
ALIASES = {
    PATH: (
        *("filename", "file_name", "filepath", "file_path", "file", "image", "image_path", "image_name", "image_file"),
        *("img", "img_path", "img_name", "imgpath", "imagepath"),
    ),
    LABEL: (
        *("labels", "given_label", "given", "noise_labels", "noisy_label", "class", "class_name", "classname"),
        *("category", "category_name", "target"),
    ),
    INDEX: ("idx",),
    SPLIT: (),
    TRUSTED: ("clean_label", "trusted", "true_label"),
}
ID = "id"  # a path or a position: its content shows which
KNOWN = frozenset((*ALIASES, *(name for names in ALIASES.values() for name in names), ID))
FILE_NAME = re.compile(r".*[^./\\]\.[A-Za-z][A-Za-z0-9]{1,4}", re.DOTALL)
SAMPLE = 50  # rows that show what a column holds


def plain_name(name: str) -> str:
    """The form in which names of columns are compared."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def is_unnamed(name: str) -> bool:
    """Whether a column has no name of its own, as the index that pandas writes."""
    plain = plain_name(name)
    return not plain or plain.startswith(("unnamed:_", "__index_level_"))


def is_number(text: str) -> bool:
    """Whether a text is a number, also NaN or infinity."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_path_like(text: str) -> bool:
    """Whether a text looks like the name of a file."""
    return FILE_NAME.fullmatch(text) is not None


def is_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a text table names its columns.

    It does with a known name in it. Else it has neither numbers nor file names, and a column below has only numbers.
    """
    if any(is_path_like(cell.strip()) for cell in first):
        return False
    if any(plain_name(cell) in KNOWN for cell in first):
        return True
    if any(is_number(cell) for cell in first):
        return False
    rows = [row for row in below[:SAMPLE] if len(row) == len(first)]
    return bool(rows) and any(all(is_number(row[place]) for row in rows) for place in range(len(first)))


def find_column(header: Sequence[str], role: str, where: str) -> int | None:
    """Position of the column with a role; None where no name fits.

    The role's own name wins over other names, so that further columns do not matter. InputError for two candidates.
    """
    if role in header:
        return list(header).index(role)
    own = [place for place, name in enumerate(header) if plain_name(name) == role]
    found = own or [place for place, name in enumerate(header) if plain_name(name) in ALIASES[role]]
    if len(found) > 1:
        names = " and ".join(repr(header[place]) for place in found)
        raise InputError(f"{where}: {names} can both be the column {role}; rename one of them to {role}")
    return found[0] if found else None


def renamed_note(header: Sequence[str], roles: dict[str, int | None]) -> str:
    """Which columns are read under another name; empty where each has the role's own name."""
    renamed = [
        f"{header[place]!r} as {role}" for role, place in roles.items() if place is not None and header[place] != role
    ]
    return f"column{'s' if len(renamed) > 1 else ''} {', '.join(renamed)}" if renamed else ""
