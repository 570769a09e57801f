"""Clothing1M as users hold it: three places for the text files, two for the images, and what may be wrong."""

from pathlib import Path

import image_sets
import pytest

from fastcpc.data.datasets.clothing1m import CLASSES, list_clothing1m
from fastcpc.errors import InputError

TRAIN = ("9/87/b,2.jpg", "0/3/a,1.jpg", "0/3/c.jpg", "5/1/d,4,4.jpg", "5/0/e.jpg", "1/1/f.jpg")


@pytest.mark.parametrize("text", ["", "annotations", "annotation"])
@pytest.mark.parametrize("images", [True, False])
def test_every_layout_gives_the_same_in_the_lists_order(tmp_path: Path, text: str, images: bool) -> None:
    listing = list_clothing1m(str(image_sets.clothing1m(tmp_path, text, images)))
    prefix = "images/" if images else ""
    train = listing.splits["train"]
    assert train.names == tuple(prefix + name for name in TRAIN)
    assert train.paths == tuple(str(tmp_path / (prefix + name)) for name in TRAIN)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert train.trusted is not None and train.trusted.tolist() == [-1, -1, -1, 12, -1, -1]
    assert train.source_index.tolist() == list(range(6))
    assert listing.splits["val"].labels.tolist() == [13, 0]
    assert listing.splits["test"].names == (f"{prefix}3/25/t,1.jpg",)
    assert listing.splits["test"].labels.tolist() == [7]
    assert listing.splits["val"].trusted is None
    assert all(Path(path).is_file() for split in listing.splits.values() for path in split.paths)
    assert listing.class_names == CLASSES and len(CLASSES) == 14
    assert (CLASSES[0], CLASSES[7], CLASSES[13]) == ("T-Shirt", "Jacket", "Underwear")
    assert "train: 6 images listed, 1,000,000 were published" in listing.remarks


def test_without_images_in_two_lists_no_true_label_is_known(tmp_path: Path) -> None:
    image_sets.clothing1m(tmp_path)
    kept = [line for line in (tmp_path / "clean_label_kv.txt").read_text().splitlines() if "d,4,4" not in line]
    image_sets.lines(tmp_path / "clean_label_kv.txt", kept)
    assert list_clothing1m(str(tmp_path)).splits["train"].trusted is None


def test_merged_lists_replace_keys_and_labels(tmp_path: Path) -> None:
    image_sets.clothing1m(tmp_path)
    (tmp_path / "clean_val_key_list.txt").unlink()
    image_sets.lines(tmp_path / "annotations/clean_val.txt", ["images/2/0/v.jpg 9"])
    val = list_clothing1m(str(tmp_path)).splits["val"]
    assert val.names == ("images/2/0/v.jpg",) and val.labels.tolist() == [9]


def edit(path: Path, number: int, text: str) -> None:
    rows = path.read_text().splitlines()
    rows[number - 1] = text
    image_sets.lines(path, rows)


@pytest.mark.parametrize(
    ("file", "number", "text", "message"),
    [
        ("noisy_label_kv.txt", 2, "images/5/0/e.jpg", "noisy_label_kv.txt: line 2 has no label: 'images/5/0/e.jpg'"),
        ("noisy_label_kv.txt", 2, "images/5/0/e.jpg 4x", "line 2 has no label: '4x' is not a whole number"),
        ("noisy_label_kv.txt", 3, "images/5/1/d,4,4.jpg 14", "line 3 has label 14, outside 0..13"),
        ("noisy_label_kv.txt", 2, "images/1/1/f.jpg 3", "gives 'images/1/1/f.jpg' label 3, an earlier line gave 5"),
        (
            "noisy_train_key_list.txt",
            4,
            "images/7/7/no.jpg",
            "line 4 names 'images/7/7/no.jpg', which has no label in ",
        ),
        ("noisy_train_key_list.txt", 4, "images/0/3/c.jpg", "line 4 names 'images/0/3/c.jpg' again, after line 3"),
        ("noisy_label_kv.txt", 1, "/etc/x.jpg 1", "line 1 names '/etc/x.jpg'; a key of Clothing1M begins with images/"),
        ("noisy_label_kv.txt", 1, "images/../../x.jpg 1", "line 1 names .* is outside the data set's folder"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, file: str, number: int, text: str, message: str) -> None:
    edit(image_sets.clothing1m(tmp_path) / file, number, text)
    with pytest.raises(InputError, match=message):
        list_clothing1m(str(tmp_path))


def test_layout_without_lists_names_what_is_missing(tmp_path: Path) -> None:
    image_sets.put(tmp_path / "images/0/a.jpg")
    (tmp_path / "noisy_train").mkdir()
    with pytest.raises(InputError, match=r"noisy_train_key_list.txt and noisy_label_kv.txt missing.*annotations.zip"):
        list_clothing1m(str(tmp_path))


def test_missing_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no Clothing1M images here; expected images/0 .* by mail"):
        list_clothing1m(str(tmp_path))
    image_sets.clothing1m(tmp_path)
    (tmp_path / "images/9/87/b,2.jpg").unlink()
    with pytest.raises(InputError, match=r"b,2.jpg: no such file, though it is the first of Clothing1M's train list"):
        list_clothing1m(str(tmp_path))
    with pytest.raises(InputError, match=r"data.root=.*nowhere: no such folder"):
        list_clothing1m(str(tmp_path / "nowhere"))


def test_other_classes_are_refused(tmp_path: Path) -> None:
    image_sets.clothing1m(tmp_path)
    image_sets.lines(tmp_path / "category_names_eng.txt", CLASSES)
    list_clothing1m(str(tmp_path))
    image_sets.lines(tmp_path / "category_names_eng.txt", CLASSES[1:])
    with pytest.raises(InputError, match=r"category_names_eng.txt: 13 classes, not Clothing1M's 14"):
        list_clothing1m(str(tmp_path))
