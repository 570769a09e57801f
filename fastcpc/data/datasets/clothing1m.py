"""Lists Clothing1M: a million images of clothes with noisy labels, and clean lists for validation and test."""

from collections.abc import Sequence
from pathlib import Path

from fastcpc.config.paths import existing_folder
from fastcpc.config.schema import DataConfig
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.datasets.listing import (
    UNKNOWN,
    Line,
    Listing,
    find_file,
    first_exists,
    inside,
    make_split,
    path_and_label,
    read_lines,
    shorten,
)
from fastcpc.errors import InputError

CLASSES = (
    *("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker"),
    *("Jacket", "Downcoat", "Suit", "Shawl", "Dress", "Vest", "Underwear"),
)
# Split -> file of keys, file of labels per key, one file with both, published number of images.
PARTS = {
    "train": ("noisy_train_key_list.txt", "noisy_label_kv.txt", "noisy_train.txt", 1_000_000),
    "val": ("clean_val_key_list.txt", "clean_label_kv.txt", "clean_val.txt", 14_313),
    "test": ("clean_test_key_list.txt", "clean_label_kv.txt", "clean_test.txt", 10_526),
}
CLEAN_LABELS = "clean_label_kv.txt"
CLASS_FILE = "category_names_eng.txt"
TEXT_FOLDERS = ("", "annotations", "annotation")
IMAGES = "images/"
MEAN, STD = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)  # DivideMix
WHERE = "its authors send the link by mail, see github.com/Cysu/noisy_label"


def list_clothing1m(root: str) -> Listing:
    """List Clothing1M: the noisy train list, clean_val as "val", clean_test as "test".

    Training images that also have a clean label get it as trusted label.

    root: holds images/0 .. images/9, or 0 .. 9, and the text files (also in annotations/ or annotation/).
    Raises InputError with file and line for missing lists, lines without a label, unknown keys and foreign classes.
    """
    base = existing_folder("data.root", root)
    places = [base / name for name in TEXT_FOLDERS]
    images = base / "images"
    has_images = images.is_dir()
    if not has_images and not (base / "0").is_dir():
        raise InputError(f"{base}: no Clothing1M images here; expected images/0 .. images/9, or 0 .. 9; {WHERE}")
    remarks = []
    splits: dict[str, ImageSplit] = {}
    clean_file = find_file(CLEAN_LABELS, places)
    clean = {} if clean_file is None else _read_labels(clean_file)
    for part, (_, _, _, published) in PARTS.items():
        keys, labels = _read_part(part, base, places)
        trusted = [clean.get(key, UNKNOWN) for key in keys] if part == "train" else None
        names = keys if has_images else [key.removeprefix(IMAGES) for key in keys]
        splits[part] = make_split(base, names, labels, trusted)
        first_exists(splits[part], f"Clothing1M's {part} list")
        if len(keys) != published:
            remarks.append(f"{part}: {len(keys):,} images listed, {published:,} were published")
    _check_classes(places)
    layout = f"{'images/ and ' if has_images else 'no images/ folder, '}text files of Clothing1M"
    return Listing("clothing1m", layout, CLASSES, CLASSES, splits, tuple(remarks), MEAN, STD)


def _read_part(part: str, base: Path, places: list[Path]) -> tuple[list[str], list[int]]:
    """Keys and labels of a split, in the order of its list."""
    list_name, label_name, merged_name, _ = PARTS[part]
    keys_file, labels_file = find_file(list_name, places), find_file(label_name, places)
    if keys_file is not None and labels_file is not None:
        table = _read_labels(labels_file)
        lines = list(read_lines(keys_file))
        for line in lines:
            if line.text not in table:
                raise line.problem(f"names {shorten(line.text)!r}, which has no label in {labels_file}")
        return _once([(line, line.text, table[line.text]) for line in lines])
    merged = find_file(merged_name, places)
    if merged is not None:
        return _once([(line, *_key_and_label(line)) for line in read_lines(merged)])
    unlisted = sorted(path.name for path in base.glob("*_train") if path.is_dir())
    hint = f"; {unlisted[0]}/ alone has no labels" if unlisted else ""
    missing = " and ".join(name for name, path in ((list_name, keys_file), (label_name, labels_file)) if path is None)
    raise InputError(
        f"{base}: {missing} missing, here and in annotations/ and annotation/ (or {merged_name}, lines 'key label'): "
        f"unpack annotations.zip{hint}; {WHERE}"
    )


def _read_labels(path: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    for line in read_lines(path):
        key, label = _key_and_label(line)
        if table.setdefault(key, label) != label:
            raise line.problem(f"gives {shorten(key)!r} label {label}, an earlier line gave {table[key]}")
    if not table:
        raise InputError(f"{path}: is empty")
    return table


def _key_and_label(line: Line) -> tuple[str, int]:
    key, label = path_and_label(line, len(CLASSES))
    if not key.startswith(IMAGES):
        raise line.problem(f"names {shorten(key)!r}; a key of Clothing1M begins with {IMAGES}")
    return inside(key, line), label


def _once(rows: list[tuple[Line, str, int]]) -> tuple[list[str], list[int]]:
    """Keys and labels. InputError on a repeated key."""
    seen: dict[str, int] = {}
    for line, key, _ in rows:
        if key in seen:
            raise line.problem(f"names {shorten(key)!r} again, after line {seen[key]}")
        seen[key] = line.number
    if not rows:
        raise InputError("a list of Clothing1M is empty; unpack annotations.zip again")
    return [key for _, key, _ in rows], [label for _, _, label in rows]


def _check_classes(places: list[Path]) -> None:
    """Check that the class file, if it exists, names the fourteen classes in their order."""
    path = find_file(CLASS_FILE, places)
    names = [] if path is None else [line.text for line in read_lines(path)]
    if path is not None and tuple(name.lower() for name in names) != tuple(name.lower() for name in CLASSES):
        raise InputError(f"{path}: {len(names)} classes, not Clothing1M's 14 in their order ({', '.join(CLASSES)})")


def key_list_without(config: DataConfig, kept: Sequence[str], dropped: Sequence[str]) -> tuple[bytes, str]:
    """A key list of the kept images, and how to use it (``data.registry.DatasetSpec.list_without``)."""
    keys = [path if path.startswith(IMAGES) else f"{IMAGES}{path}" for path in kept]
    content = "".join(f"{key}\n" for key in keys).encode()
    return content, f"{len(keys):,} keys: replace noisy_train_key_list.txt with it"
