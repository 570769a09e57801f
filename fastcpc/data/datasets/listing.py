"""The files and labels of a data set of image files, and functions that read its text files."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcpc.data.dataset import ImageSplit
from fastcpc.data.image_store import ImageFiles
from fastcpc.data.labels.text_table import decode_text
from fastcpc.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AT_ONCE = 10_000  # names
UNKNOWN = -1  # marks a sample without a trusted label


@dataclass(frozen=True)
class Listing:
    """Files and labels of a data set in its official order.

    layout: a description of the layout. class_ids: names of the classes in the data set's own files
    (folder, WordNet id), one for each class. splits: "train", and "val", "test" or others where they are there.
    remarks: lines for the user that are not errors. mean, std: per channel, of [0, 1] pixels.
    held_out: whether the test part is drawn from the training images.
    """

    name: str
    layout: str
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    splits: dict[str, ImageSplit]
    remarks: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text file that is not blank; number counts from 1."""

    file: Path
    number: int
    text: str

    def problem(self, reason: str) -> InputError:
        """An InputError with file and line."""
        return InputError(f"{self.file}: line {self.number} {reason}")


def find_file(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of this name in the first folder that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def need_file(name: str, folders: Sequence[Path], hint: str) -> Path:
    """As ``find_file``, but raises InputError with the searched folders and a hint where no folder has the file."""
    path = find_file(name, folders)
    if path is None:
        places = ", ".join(str(folder) for folder in folders)
        raise InputError(f"{name} is missing; sought in {places}; {hint}")
    return path


def read_lines(path: Path) -> Iterator[Line]:
    """The non-blank lines of a text file, stripped. InputError names the file."""
    try:
        text, _ = decode_text(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped:
            yield Line(path, number, stripped)


def path_and_label(line: Line, num_classes: int) -> tuple[str, int]:
    """A line "path label", split at its last blank, because paths may contain commas and blanks."""
    parts = line.text.rsplit(None, 1)
    if len(parts) != 2:
        raise line.problem(f"has no label: {shorten(line.text)!r}; expected 'path label'")
    path, label = parts
    if not (label.isascii() and label.isdigit()):
        raise line.problem(f"has no label: {shorten(label)!r} is not a whole number; expected 'path label'")
    if int(label) >= num_classes:
        raise line.problem(f"has label {shorten(label)}, outside 0..{num_classes - 1}")
    return path, int(label)


def inside(path: str, line: Line) -> str:
    """Return a path of a list. InputError where it is outside the data set's folder."""
    if os.path.isabs(path) or ".." in path.split("/"):
        raise line.problem(f"names {shorten(path)!r}, which is outside the data set's folder")
    return path


def shorten(text: str) -> str:
    """The first 80 characters of a text, for a message."""
    return text if len(text) <= 80 else f"{text[:80]}..."


def make_split(
    base: str | Path,
    names: Sequence[str],
    labels: Sequence[int],
    trusted: Sequence[int] | None = None,
    files: Sequence[str] | None = None,
) -> ImageSplit:
    """A split in the order given; names are relative to base. trusted: -1 where not known.

    files: the names as the file system spells them, where that differs. Raises InputError for a name that is not UTF-8,
    because a table cannot store it.
    """
    check_names(base, names)
    known = None if trusted is None else np.array(trusted, np.int64)
    folder = os.path.join(base, "")
    return ImageSplit(
        images=ImageFiles([file if file[:1] == "/" else folder + file for file in (names if files is None else files)]),
        labels=np.array(labels, np.int64),
        trusted=None if known is None or not (known != UNKNOWN).any() else known,
        source_index=np.arange(len(names), dtype=np.int64),
        names=tuple(names),
    )


def check_names(base: str | Path, names: Sequence[str]) -> None:
    """InputError for a name that is not UTF-8, because a table cannot store it."""
    try:
        for first in range(0, len(names), AT_ONCE):  # one text of all names would need as much memory again
            "".join(names[first : first + AT_ONCE]).encode()
    except UnicodeEncodeError:
        odd = next(name for name in names if not _is_utf8(name))
        raise InputError(
            f"{os.path.join(base, odd)!r}: this name is not UTF-8; rename it, such as by "
            "convmv -f latin1 -t utf-8 -r --notest DIR"
        ) from None


def _is_utf8(name: str) -> bool:
    # the file system returns bytes that are not UTF-8 as surrogates
    return not any("\ud800" <= character <= "\udfff" for character in name)


def first_exists(split: ImageSplit, what: str) -> None:
    """Raise InputError when the first file of a split is missing: the images are probably in another folder."""
    if len(split) and split.images.state(0) is None:
        raise InputError(
            f"{split.images.path(0)}: no such file, though it is the first of {what}; are the images unpacked?"
        )
