"""Data sets of small image files, laid out as users hold them."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = tuple(f"n{1440764 + 7 * k:08d}" for k in range(1000))


def jpeg(seed: int = 0, size: tuple[int, int] = (48, 40), mode: str = "RGB", **save: object) -> bytes:
    """A JPEG of smooth made-up colours; size: width, height."""
    draws = np.random.default_rng(seed)
    coarse = Image.fromarray(draws.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, "JPEG", quality=90, **save)
    return buffer.getvalue()


TINY = jpeg(size=(8, 8))


def put(path: Path, content: bytes = TINY) -> Path:
    """Write a file, its folders first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def lines(path: Path, rows: Sequence[str]) -> Path:
    """Write a text file of these lines."""
    return put(path, "".join(f"{row}\n" for row in rows).encode())


def clothing1m(root: Path, text: str = "", images: bool = True) -> Path:
    """Six noisy images, two val, one test; key 3 of the noisy ones has a clean label too. Lists are not sorted."""
    names = ("9/87/b,2.jpg", "0/3/a,1.jpg", "0/3/c.jpg", "5/1/d,4,4.jpg", "5/0/e.jpg", "1/1/f.jpg")
    noisy = [f"images/{name}" for name in names]
    val, test = ["images/2/26/3761328114,905362226.jpg", "images/2/0/v.jpg"], ["images/3/25/t,1.jpg"]
    base = root / text
    lines(base / "noisy_train_key_list.txt", noisy)
    lines(base / "clean_val_key_list.txt", val)
    lines(base / "clean_test_key_list.txt", test)
    lines(
        base / "noisy_label_kv.txt",
        [f"{key} {label}" for key, label in zip(noisy[::-1], (5, 4, 3, 2, 1, 0), strict=True)],
    )
    lines(base / "clean_label_kv.txt", [f"{noisy[3]} 12", f"{val[0]} 13", f"{val[1]} 0", f"{test[0]} 7"])
    for number, key in enumerate((*noisy, *val, *test)):
        put(root / (key if images else key.removeprefix("images/")), jpeg(number))
    return root


def webvision(root: Path, num_classes: int = 2, val_folder: str = "val_images_256") -> Path:
    """Three Google images and one of Flickr in each of the first classes, out of order; 1,000 classes in the lists."""
    info = root / "info"
    lines(info / "synsets.txt", [f"{wnid} class {k}, also called so" for k, wnid in enumerate(WNIDS)])
    google = [f"google/q{2 * k + 1:04d}/photo {i},x.jpg {k}" for i in (2, 0, 1) for k in range(num_classes)]
    flickr = [f"flickr/q{k:04d}/p.jpg {k}" for k in range(num_classes)]
    lines(info / "train_filelist_google.txt", [*google, "google/q9999/z.jpg 999"])
    lines(info / "train_filelist_flickr.txt", [*flickr, "flickr/q9999/z.jpg 999"])
    val = [f"val{i + 1:06d}.jpg {(i * 7) % 1000}" for i in range(50_000)]
    lines(info / "val_filelist.txt", val)
    for number, row in enumerate([*google, *flickr]):
        put(root / row.rsplit(" ", 1)[0], jpeg(number))
    for row in val:
        name, label = row.split()
        if int(label) < num_classes:
            put(root / val_folder / name)
    return root


def ilsvrc_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def ilsvrc_truth(num_classes: int) -> Iterator[tuple[int, int]]:
    """(image number from 1, WebVision class) of 50 images of each class, mixed."""
    for i in range(50 * num_classes):
        yield i + 1, (3 * i) % num_classes if num_classes % 3 else i % num_classes


def _by_wnid(root: Path, num_classes: int) -> None:
    for number, label in ilsvrc_truth(num_classes):
        put(root / "val" / WNIDS[label] / ilsvrc_name(number))
    put(root / "val" / WNIDS[900] / ilsvrc_name(9999))


def _by_number(root: Path, num_classes: int) -> None:
    for number, label in ilsvrc_truth(num_classes):
        put(root / "val" / str(label) / ilsvrc_name(number))


def _by_list(root: Path, num_classes: int) -> None:
    rows = [f"{ilsvrc_name(number)} {label}" for number, label in ilsvrc_truth(num_classes)]
    lines(root / "imagenet_val.txt", [*rows, f"{ilsvrc_name(9999)} 999"])
    for number, _ in ilsvrc_truth(num_classes):
        put(root / "val" / ilsvrc_name(number))


def _by_devkit(root: Path, num_classes: int) -> None:
    """ILSVRC2012_ID runs against the order of WordNet ids, and meta.mat holds inner nodes too."""
    data = root / "ILSVRC2012_devkit_t12" / "data"
    rows = np.zeros(1003, dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for i in range(1003):
        rows[i] = (i + 1, WNIDS[999 - i] if i < 1000 else f"n9999999{i - 1000}", "a, b")
    lines(data / "ILSVRC2012_validation_ground_truth.txt", [str(1000 - k) for _, k in ilsvrc_truth(num_classes)])
    savemat(data / "meta.mat", {"synsets": rows[:, None]})
    for number, _ in ilsvrc_truth(num_classes):
        put(root / ilsvrc_name(number))


ILSVRC12: dict[str, Callable[[Path, int], None]] = {
    "wnid": _by_wnid,
    "number": _by_number,
    "list": _by_list,
    "devkit": _by_devkit,
}


def imagefolder(root: Path, counts: dict[str, int], ending: str = ".jpg") -> Path:
    """``counts``: folder (relative, a class or split/class) -> number of images in it."""
    for number, (folder, count) in enumerate(counts.items()):
        for i in range(count):
            put(root / folder / f"{i:03d}{ending}", jpeg(100 * number + i))
    return root
