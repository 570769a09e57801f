"""WebVision 1.0 and its first classes (mini-WebVision): web images with noisy labels, a clean val list."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcpc.config.paths import existing_folder
from fastcpc.config.schema import DataConfig
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.ilsvrc12 import list_ilsvrc12
from fastcpc.data.datasets.listing import (
    Listing,
    find_file,
    first_exists,
    inside,
    make_split,
    need_file,
    path_and_label,
    read_lines,
)
from fastcpc.errors import InputError

ALL_CLASSES = 1000
VAL_PER_CLASS = 50
VAL_FOLDERS = ("val_images_256", "val_images")
WHERE = "WebVision 1.0 (2017): data.vision.ee.ethz.ch/cvl/webvision, info.tar and the resized archives"


def list_webvision(root: str, num_classes: int = 50, flickr: bool = False, ilsvrc12: str = "") -> Listing:
    """Training images of the first classes in the order of Google's list (then Flickr's), and the val list as "test".

    root: holds info/, google/ (flickr/) and val_images_256/ or val_images/. num_classes: 2..1000. ilsvrc12: folder of
    ILSVRC12's validation images, which become the split "ilsvrc12". Raises InputError naming file and line.
    """
    base = existing_folder("data.root", root)
    places = [base / "info", base]
    ids, names = read_synsets(need_file("synsets.txt", places, WHERE))
    train = _read_train(base, places, num_classes, flickr)
    test = _read_val(base, places, num_classes)
    splits = {"train": train, "test": test, "val": test}
    counts = np.bincount(train.labels, minlength=num_classes)
    if not counts.all():
        raise InputError(f"{base}: no training image of class {int(counts.argmin())} ({names[int(counts.argmin())]})")
    remarks = [f"training images a class: {counts.min():,} to {counts.max():,}"]
    if ilsvrc12:
        splits["ilsvrc12"], remark = list_ilsvrc12(ilsvrc12, ids, num_classes)
        remarks.append(remark)
    kept_names, kept_ids = names[:num_classes], ids[:num_classes]
    lists = "Google and Flickr" if flickr else "Google"
    layout = f"WebVision 1.0, {lists} list, first {num_classes} classes"
    return Listing("webvision", layout, kept_names, kept_ids, splits, tuple(remarks))


def read_synsets(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """WordNet ids and names of all 1,000 classes; line i, from 0, is class i."""
    ids, names = [], []
    for line in read_lines(path):
        wnid, _, words = line.text.partition(" ")
        if not (wnid.startswith("n") and wnid[1:].isdigit()):
            raise line.problem(f"begins with {wnid[:40]!r}, expected a WordNet id such as n01440764")
        ids.append(wnid)
        names.append(words.split(",")[0].strip() or wnid)
    if len(ids) != ALL_CLASSES:
        newer = " (5,000 is WebVision 2.0, which has other labels)" if len(ids) == 5000 else ""
        raise InputError(f"{path}: {len(ids):,} classes{newer}, expected the 1,000 of WebVision 1.0; {WHERE}")
    if len(set(ids)) != len(ids):
        raise InputError(f"{path}: a WordNet id occurs twice; {WHERE}")
    return tuple(ids), tuple(names)


def _read_train(base: Path, places: list[Path], num_classes: int, flickr: bool) -> ImageSplit:
    names: list[str] = []
    labels: list[int] = []
    for part in ("google", "flickr") if flickr else ("google",):
        path = need_file(f"train_filelist_{part}.txt", places, WHERE)
        largest = -1
        for line in read_lines(path):
            name, label = path_and_label(line, ALL_CLASSES)
            largest = max(largest, label)
            if label < num_classes:
                names.append(inside(name, line))
                labels.append(label)
        if largest != ALL_CLASSES - 1:
            raise InputError(f"{path}: labels end at {largest}, those of WebVision 1.0 end at {ALL_CLASSES - 1}")
        if not (base / part).is_dir():
            raise InputError(f"{base / part}: no such folder; unpack {part}_resized_256.tar there; {WHERE}")
    if len(set(names)) != len(names):
        raise InputError(f"{base}: an image occurs twice in the training lists")
    split = make_split(base, names, labels)
    first_exists(split, "WebVision's training list")
    return split


def _read_val(base: Path, places: list[Path], num_classes: int) -> ImageSplit:
    path = need_file("val_filelist.txt", places, WHERE)
    folder = next((name for name in VAL_FOLDERS if (base / name).is_dir()), None)
    if folder is None:
        raise InputError(f"{base}: neither {' nor '.join(VAL_FOLDERS)} here; unpack val_images_256.tar; {WHERE}")
    rows = [(line, *path_and_label(line, ALL_CLASSES)) for line in read_lines(path)]
    counts = np.bincount(np.array([label for _, _, label in rows], np.int64), minlength=ALL_CLASSES)
    wrong = np.flatnonzero(counts != VAL_PER_CLASS)
    if len(wrong):
        raise InputError(
            f"{path}: {counts[wrong[0]]} images of class {wrong[0]}, expected {VAL_PER_CLASS} of each of the 1,000: "
            f"not WebVision 1.0's; {WHERE}"
        )
    kept = [(f"{folder}/{inside(name, line)}", label) for line, name, label in rows if label < num_classes]
    split = make_split(base, [name for name, _ in kept], [label for _, label in kept])
    first_exists(split, "WebVision's val list")
    return split


def filelist_without(config: DataConfig, kept: Sequence[str], dropped: Sequence[str]) -> tuple[bytes, str]:
    """The training filelist without the dropped images, and how to use it (``data.registry.DatasetSpec.list_without``).

    InputError where two filelists are in use, or the filelist is missing.
    """
    if config.flickr:
        raise InputError(
            "--cleaned-list: data.flickr has two filelists; train and clean with one of them, or use --out"
        )
    name = "train_filelist_google.txt"
    base = Path(config.root).expanduser()
    original = find_file(name, [base / "info", base])
    if original is None:
        raise InputError(f"{base}: no {name}; restore it, because the cleaned list has its lines")
    without = set(dropped)
    lines = [line.text for line in read_lines(original) if line.text.rsplit(None, 1)[0] not in without]
    content = "".join(f"{text}\n" for text in lines).encode()
    return content, f"{len(lines):,} lines with unused classes: replace info/{name} with it"
