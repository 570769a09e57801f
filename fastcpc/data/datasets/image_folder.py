"""Lists a user's images: one folder per class, below train/val/test or not, or a list file."""

import os
from collections.abc import Sequence
from pathlib import Path

from fastcpc.config.data_root import files_below
from fastcpc.config.names import DATASETS
from fastcpc.config.paths import existing_folder
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.held_out import with_test_part
from fastcpc.data.datasets.image_list import SPLIT_OF, list_by_file
from fastcpc.data.datasets.listing import Listing, make_split, read_lines, shorten
from fastcpc.data.image_files import IMAGE_ENDINGS
from fastcpc.errors import InputError

USUAL_PARTS = ("train", "val", "valid", "validation", "test")  # read without a remark


def list_imagefolder(root: str, list_file: str = "", classes_file: str = "", holdout: float = 0.1) -> Listing:
    """List images by folder, or by a list whose paths are relative to root.

    Classes are sorted by name, or have the order of classes_file. classes_file: one line "name" or "id name" per class;
    folders and labels may use the id or the name. holdout: share of each class that becomes "test" where there is
    neither a val nor a test part; 0: "test" is then the training part. This draw has a fixed seed, so all runs have the
    same split. Raises InputError, with the folder or the line of the list, where classes and splits do not match.
    """
    base = existing_folder("data.root", root)
    known = read_classes(classes_file) if classes_file else None
    remarks: list[str] = []
    if list_file:
        listed = list_by_file(base, list_file, known)
        layout, ids, splits = "a list of images", listed.class_ids, listed.splits
        remarks += [listed.note] if listed.note else []
    else:
        layout, ids, splits = _from_folders(base, known, remarks)
    if known is None and all(name.isdecimal() for name in ids) and list(ids) != sorted(ids, key=int):
        remarks.append(
            f"classes are numbers and sorted as text: {shorten(', '.join(ids[:12]))}; class 2 is not folder 2; "
            "data.classes sets another order"
        )
    names = ids if known is None else tuple(name for _, name in known)
    return with_test_part(Listing("imagefolder", layout, names, ids, splits, tuple(remarks)), holdout)


def read_classes(file: str) -> list[tuple[str, str]]:
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
        hint = _containers(folder)
        raise InputError(f"{folder}: {len(found)} class folders; at least two are required, one folder per class{hint}")
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
        files = files_below(folder / name) if (folder / name).is_dir() else []
        images = [path for path in files if path.lower().endswith(IMAGE_ENDINGS)]
        other += sorted(set(files) - set(images))
        if not images and is_train:
            raise InputError(f"{folder / name}: no images ({', '.join(IMAGE_ENDINGS)}) in this class's folder")
        names += [os.path.relpath(path, base) for path in images]
        labels += [label] * len(images)
    if other:
        remarks.append(f"{folder}: {len(other):,} files are left alone, no images by their ending: {other[0]}, ...")
    return make_split(base, names, labels)


def _containers(folder: Path) -> str:
    """The end of a message where a folder has shards or Parquet files instead of class folders."""
    files = sorted(item for item in folder.iterdir() if item.is_file())
    kind = {ending: name for name, traits in DATASETS.items() for ending in traits.files}
    first = next((file for file in files if file.suffix.lower() in kind), None)
    return "" if first is None else f"; it has {first.name}: data.name={kind[first.suffix.lower()]}"


def _folders(folder: Path) -> list[str]:
    """Sorted names of the folders inside, without hidden folders."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
