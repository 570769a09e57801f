"""Lists a user's images: one folder per class, below train/val/test or not, or a list file."""

import os
from collections.abc import Sequence
from pathlib import Path

from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.held_out import hold_out
from fastcpc.data.datasets.image_list import Row, read_list
from fastcpc.data.datasets.listing import (
    UNKNOWN,
    Listing,
    existing_folder,
    make_split,
    read_lines,
    shorten,
)
from fastcpc.data.image_files import IMAGE_ENDINGS
from fastcpc.errors import InputError

# Names of parts, in any case.
SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
USUAL_PARTS = ("train", "val", "valid", "validation", "test")  # read without a remark


def list_imagefolder(root: str, list_file: str = "", classes_file: str = "", holdout: float = 0.1) -> Listing:
    """List images by folder, or by a list whose paths are relative to root.

    Classes are sorted by name, or have the order of classes_file. classes_file: one line "name" or "id name" per class;
    folders and labels may use the id or the name. holdout: share of each class that becomes "test" where there is
    neither a val nor a test part. This draw has a fixed seed, so all runs have the same split. Raises InputError, with
    the folder or the line of the list, where classes and splits do not match.
    """
    base = existing_folder("data.root", root)
    known = _read_classes(classes_file) if classes_file else None
    remarks: list[str] = []
    if list_file:
        layout, ids, splits = _from_list(base, read_list(list_file), known)
    else:
        layout, ids, splits = _from_folders(base, known, remarks)
    if known is None and all(name.isdigit() for name in ids) and list(ids) != sorted(ids, key=int):
        remarks.append(
            f"classes are numbers and sorted as text: {shorten(', '.join(ids[:12]))}; class 2 is not folder 2; "
            "data.classes sets another order"
        )
    names = ids if known is None else tuple(name for _, name in known)
    held_out = set(splits) == {"train"}
    if held_out:
        splits = hold_out(splits["train"], holdout)
        remarks.append(
            f"no val or test part: {len(splits['test']):,} images ({holdout:g} of each class) are kept out of training "
            "for the accuracy, which is judged by their given labels"
        )
    splits.setdefault("test", splits.get("val", splits["train"]))
    return Listing("imagefolder", layout, names, ids, splits, tuple(remarks), held_out=held_out)


def _read_classes(file: str) -> list[tuple[str, str]]:
    """Id and name of each class. Both are equal where a line gives only one."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"data.classes={file}: no such file")
    classes: list[tuple[str, str]] = []
    for line in read_lines(path):
        first, _, rest = line.text.partition(" ")
        wnid = len(first) == 9 and first[0] == "n" and first[1:].isdigit()
        entry = (first, rest.strip() or first) if wnid else (line.text, line.text)
        if entry[0] in {known for known, _ in classes}:
            raise line.problem(f"names class {shorten(entry[0])!r} again")
        classes.append(entry)
    return classes


def _from_folders(
    base: Path, known: list[tuple[str, str]] | None, remarks: list[str]
) -> tuple[str, tuple[str, ...], dict[str, ImageSplit]]:
    inner = _folders(base)
    parts = _part_folders(base, inner, known)
    train = next((name for name, which in parts.items() if which == "train"), "")
    if not train:
        ids = _class_ids(base, inner, known)
        return "one folder per class", ids, {"train": _walk(base, base, ids, remarks, is_train=True)}
    other = [name for name in inner if name not in parts]
    if other:
        remarks.append(f"beside {train}/: {shorten(', '.join(other))} left alone, they are no parts of a data set")
    odd = [f"{name}/ is read as {which}" for name, which in parts.items() if name not in USUAL_PARTS]
    if odd:
        remarks.append(", ".join(odd))
    ids = _class_ids(base / train, _folders(base / train), known)
    splits = {}
    for name, split in sorted(parts.items(), key=lambda item: item[1] != "train"):
        foreign = [folder for folder in _folders(base / name) if folder not in ids]
        if foreign:
            raise InputError(f"{base / name / foreign[0]}: class {foreign[0]!r} is not in {train}/")
        splits[split] = _walk(base, base / name, ids, remarks, is_train=split == "train")
    return f"{', '.join(f'{name}/' for name in parts)} with one folder per class", ids, splits


def _part_folders(base: Path, inner: list[str], known: list[tuple[str, str]] | None) -> dict[str, str]:
    """The folders that are parts, with the name of the part; empty where the folders are classes.

    A class of data.classes is no part. InputError where two folders are one part, and for parts without a train part.
    """
    classes = {name for entry in known or [] for name in entry}
    parts = {name: SPLIT_OF[name.lower()] for name in inner if name.lower() in SPLIT_OF and name not in classes}
    for which in dict.fromkeys(parts.values()):
        same = [name for name in parts if parts[name] == which]
        if len(same) > 1:
            raise InputError(f"{base}: {' and '.join(f'{name}/' for name in same)} mean the same; keep one")
    if not parts or "train" in parts.values():
        return parts
    listed, other = ", ".join(f"{name}/" for name in parts), [name for name in inner if name not in parts]
    if not other:
        raise InputError(f"{base}: has {listed} but no train/")
    raise InputError(
        f"{base}: has {listed} beside class folders ({shorten(', '.join(other))}) but no train/; move the class "
        f"folders into train/, or list all classes in data.classes if {next(iter(parts))} is a class"
    )


def _class_ids(folder: Path, found: list[str], known: list[tuple[str, str]] | None) -> tuple[str, ...]:
    """The names of the class folders, in class order."""
    if len(found) < 2:
        raise InputError(f"{folder}: {len(found)} class folders; at least two are required, one folder per class")
    if known is None:
        return tuple(found)
    ids = tuple(wnid if wnid in found or name not in found else name for wnid, name in known)
    missing = [name for name in ids if name not in found]
    foreign = [name for name in found if name not in ids]
    if missing:
        raise InputError(f"{folder}: no folder {missing[0]!r}, a class of data.classes")
    if foreign:
        raise InputError(f"{folder / foreign[0]}: class {foreign[0]!r} is not in data.classes")
    return ids


def _walk(base: Path, folder: Path, ids: Sequence[str], remarks: list[str], *, is_train: bool) -> ImageSplit:
    """All images below the class folders, sorted by class and path."""
    names: list[str] = []
    labels: list[int] = []
    other: list[str] = []
    for label, name in enumerate(ids):
        files = _files(folder / name) if (folder / name).is_dir() else []
        images = [path for path in files if path.lower().endswith(IMAGE_ENDINGS)]
        other += sorted(set(files) - set(images))
        if not images and is_train:
            raise InputError(f"{folder / name}: no images ({', '.join(IMAGE_ENDINGS)}) in this class's folder")
        names += [os.path.relpath(path, base) for path in images]
        labels += [label] * len(images)
    if other:
        remarks.append(f"{folder}: {len(other):,} files are left alone, no images by their ending: {other[0]}, ...")
    return make_split(base, names, labels)


def _folders(folder: Path) -> list[str]:
    """Sorted names of the folders inside, without hidden folders."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None


def _files(folder: Path) -> list[str]:
    """Sorted paths of all files below a folder, without hidden files. Links to folders are followed once."""
    found: list[str] = []
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None

    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            found += [os.path.join(place, name) for name in files if not name.startswith(".")]
        seen.add(real)
    return sorted(found)


def _from_list(
    base: Path, rows: list[Row], known: list[tuple[str, str]] | None
) -> tuple[str, tuple[str, ...], dict[str, ImageSplit]]:
    """Labels are class names, or whole numbers from 0, or ids, names and numbers of data.classes.

    Paths may be absolute or outside base, because the list comes from the user.
    """
    parts: dict[str, list[Row]] = {}
    seen: dict[str, str] = {}
    for row in rows:
        split = SPLIT_OF.get(row.split.lower() or "train")
        if split is None:
            raise InputError(f"{row.place} has split {shorten(row.split)!r}; expected train, val or test")
        if row.path in seen:
            raise InputError(f"{row.place} names {shorten(row.path)!r} again, after {seen[row.path]}")
        seen[row.path] = row.place
        parts.setdefault(split, []).append(row)
    if "train" not in parts:
        raise InputError(f"{rows[0].place.partition(': ')[0]}: no row has split train")
    ids, class_of = _list_classes(parts["train"], known)
    splits = {}
    for split in sorted(parts, key=lambda name: name != "train"):
        part = parts[split]
        labels = [_class(row, row.label, class_of) for row in part]
        trusted = [_class(row, row.trusted_label, class_of) if row.trusted_label else UNKNOWN for row in part]
        splits[split] = make_split(base, [row.path for row in part], labels, trusted)
    empty = sorted(set(range(len(ids))) - set(splits["train"].labels.tolist()))
    if empty:
        raise InputError(f"{rows[0].place.partition(': ')[0]}: no training image of class {empty[0]} ({ids[empty[0]]})")
    return "a list of images", ids, splits


def _list_classes(train: list[Row], known: list[tuple[str, str]] | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class ids in order, and the class number of each label text."""
    if known is not None:
        class_of = {str(k): k for k in range(len(known))}
        for k, (wnid, name) in enumerate(known):
            class_of[name] = class_of[wnid] = k
        return tuple(wnid for wnid, _ in known), class_of
    texts = {row.label for row in train}
    if all(text.isascii() and text.isdigit() and text == str(int(text)) for text in texts):
        largest = max(int(text) for text in texts)
        if largest > len(train):
            row = next(row for row in train if int(row.label) == largest)
            raise InputError(f"{row.place} has label {shorten(row.label)}: labels count from 0, one number a class")
        ids = tuple(str(k) for k in range(largest + 1))
    else:
        ids = tuple(sorted(texts))
    if len(ids) < 2:
        raise InputError(f"{train[0].place.partition(': ')[0]}: {len(ids)} class; at least two are required")
    return ids, {name: k for k, name in enumerate(ids)}


def _class(row: Row, text: str, class_of: dict[str, int]) -> int:
    label = class_of.get(text)
    if label is None:
        raise InputError(f"{row.place} has label {shorten(text)!r}, a class without training images")
    return label
