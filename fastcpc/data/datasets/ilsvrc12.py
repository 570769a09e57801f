"""Lists ILSVRC12's validation images of WebVision's classes, in any of four common layouts.

The WordNet id identifies a class where the layout has it, because the devkit numbers classes in another order.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io

from fastcpc.config.paths import existing_folder
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.listing import inside, make_split, path_and_label, read_lines
from fastcpc.errors import InputError

PER_CLASS = 50
ALL_CLASSES = 1000
IMAGE_FOLDERS = ("", "val", "imagenet/val", "Imagenet_val", "imagenet/Imagenet_val", "ILSVRC2012_img_val", "images")
DEVKIT = ("ILSVRC2012_devkit_t12/data", "data", "")
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LIST = "imagenet_val.txt"
LAYOUTS = "val/<wnid>/, val/<0..49>/, imagenet_val.txt beside the images, or ILSVRC2012_devkit_t12 beside the images"


def list_ilsvrc12(root: str, wnids: Sequence[str], num_classes: int) -> tuple[ImageSplit, str]:
    """The 50 images of each of the first classes, sorted by class and name, and a description of the layout.

    root: holds the images in one of the four layouts. wnids: WordNet ids of all 1,000 classes in WebVision's order.
    Raises InputError where no layout fits, a class is missing, or a class does not have 50 images.
    """
    base = existing_folder("data.ilsvrc12", root)
    folders = [base / name for name in IMAGE_FOLDERS if (base / name).is_dir()]
    for folder in folders:
        inner = _folders(folder)
        if set(inner) & set(wnids):
            return _by_folder(base, folder, wnids[:num_classes], wnids), f"ilsvrc12: {folder}/<wnid>/"
    listed = next((folder / LIST for folder in (base, *folders) if (folder / LIST).is_file()), None)
    if listed is not None:
        return _by_list(base, folders, listed, wnids, num_classes), f"ilsvrc12: {listed}"
    devkit = next((base / name for name in DEVKIT if (base / name / TRUTH).is_file()), None)
    if devkit is not None:
        return _by_devkit(base, folders, devkit, wnids, num_classes), f"ilsvrc12: {devkit}"
    for folder in folders:
        if {"0", "1"} <= set(_folders(folder)):
            numbers = [str(k) for k in range(num_classes)]
            remark = f"ilsvrc12: {folder}/<number>/: taken as WebVision's class numbers, which cannot be verified"
            return _by_folder(base, folder, numbers, numbers), remark
    raise InputError(f"data.ilsvrc12={root}: no ILSVRC12 validation images in a known layout; expected {LAYOUTS}")


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None


def _files(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.name[0] != "." and entry.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None


def _by_folder(base: Path, folder: Path, kept: Sequence[str], known: Sequence[str]) -> ImageSplit:
    rows = []
    for label, name in enumerate(kept):
        if not (folder / name).is_dir():
            raise InputError(f"{folder / name}: no such folder; class {label} of WebVision is missing")
        rows += [(str((folder / name / file).relative_to(base)), label) for file in _files(folder / name)]
    return _checked(base, rows, len(kept), folder)


def _by_list(base: Path, folders: Sequence[Path], listed: Path, wnids: Sequence[str], num_classes: int) -> ImageSplit:
    """Read lines "file label". A label is a WordNet id, or a class number from 0 in WebVision's order."""
    class_of = {wnid: k for k, wnid in enumerate(wnids)}
    rows = []
    for line in read_lines(listed):
        parts = line.text.rsplit(None, 1)
        if len(parts) == 2 and parts[1] in class_of:
            name, label = parts[0], class_of[parts[1]]
        else:
            name, label = path_and_label(line, ALL_CLASSES)
        if label < num_classes:
            rows.append((_image(base, [listed.parent, *folders], inside(name, line)), label))
    return _checked(base, sorted(rows, key=lambda row: (row[1], row[0])), num_classes, listed)


def _by_devkit(base: Path, folders: Sequence[Path], devkit: Path, wnids: Sequence[str], num_classes: int) -> ImageSplit:
    """Line i of the ground truth, from 1, is the ILSVRC2012_ID of image i; meta.mat gives that number's WordNet id."""
    wnid_of = _read_meta(devkit / META)
    class_of = {wnid: k for k, wnid in enumerate(wnids)}
    rows = []
    for line in read_lines(devkit / TRUTH):
        number = int(line.text) if line.text.isascii() and line.text.isdigit() else 0
        if number not in wnid_of:
            raise line.problem(f"is {line.text[:40]!r}, expected a number in 1..{ALL_CLASSES}")
        label = class_of.get(wnid_of[number])
        if label is None:
            raise line.problem(f"is class {wnid_of[number]}, which WebVision's synsets.txt does not have")
        if label < num_classes:
            rows.append((_image(base, folders, f"ILSVRC2012_val_{line.number:08d}.JPEG"), label))
    return _checked(base, sorted(rows, key=lambda row: (row[1], row[0])), num_classes, devkit / TRUTH)


def _read_meta(path: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> WordNet id of the 1,000 leaf classes."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; it comes with the devkit, and the ground truth means nothing without")
    try:
        synsets = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
        pairs = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(synsets)}
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not the devkit's meta.mat ({reason[:80]})") from None
    return {number: wnid for number, wnid in pairs.items() if 1 <= number <= ALL_CLASSES}


def _image(base: Path, folders: Sequence[Path], name: str) -> str:
    """The image's path relative to base, in the first folder that has it."""
    folder = next((folder for folder in folders if (folder / name).is_file()), None)
    if folder is None:
        raise InputError(f"{name}: no such image in {', '.join(str(folder) for folder in folders)}")
    return str((folder / name).relative_to(base))


def _checked(base: Path, rows: Sequence[tuple[str, int]], num_classes: int, source: Path) -> ImageSplit:
    counts = np.bincount(np.array([label for _, label in rows], np.int64), minlength=num_classes)
    wrong = np.flatnonzero(counts != PER_CLASS)
    if len(wrong):
        raise InputError(
            f"{source}: {counts[wrong[0]]} images of WebVision's class {wrong[0]}, expected {PER_CLASS} of each class"
        )
    return make_split(base, [name for name, _ in rows], [label for _, label in rows])
