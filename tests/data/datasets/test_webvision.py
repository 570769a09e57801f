"""WebVision, its look-alike, and ILSVRC12's validation images in their four layouts."""

from pathlib import Path

import image_sets
import pytest
from image_sets import WNIDS, ilsvrc_name, ilsvrc_truth

from fastcpc.data.datasets.ilsvrc12 import list_ilsvrc12
from fastcpc.data.datasets.webvision import list_webvision
from fastcpc.errors import InputError


@pytest.mark.parametrize("val_folder", ["val_images_256", "val_images"])
def test_first_classes_of_google_in_the_lists_order(tmp_path: Path, val_folder: str) -> None:
    listing = list_webvision(str(image_sets.webvision(tmp_path, 3, val_folder)), num_classes=2)
    train, test = listing.splits["train"], listing.splits["test"]
    assert train.names == tuple(f"google/q{2 * k + 1:04d}/photo {i},x.jpg" for i in (2, 0, 1) for k in (0, 1))
    assert train.labels.tolist() == [0, 1] * 3
    assert len(test) == 100 and test.names[0] == f"{val_folder}/val000001.jpg"
    assert [int(name[-10:-4]) - 1 for name in test.names] == [i for i in range(50_000) if 7 * i % 1000 < 2]
    assert listing.class_names == ("class 0", "class 1") and listing.class_ids == WNIDS[:2]
    assert all(Path(path).is_file() for split in listing.splits.values() for path in split.paths)


def test_flickr_comes_after_google(tmp_path: Path) -> None:
    train = list_webvision(str(image_sets.webvision(tmp_path)), 2, flickr=True).splits["train"]
    assert train.names[-2:] == ("flickr/q0000/p.jpg", "flickr/q0001/p.jpg") and len(train) == 8


def test_version_2_is_refused(tmp_path: Path) -> None:
    image_sets.webvision(tmp_path)
    image_sets.lines(tmp_path / "info/synsets.txt", [f"n{k:08d} x" for k in range(5000)])
    with pytest.raises(InputError, match=r"synsets.txt: 5,000 classes \(5,000 is WebVision 2.0"):
        list_webvision(str(tmp_path), 2)


def replace_line(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train_filelist_google.txt", "z.jpg 999", "z.jpg 998", "train_filelist_google.txt: labels end at 998"),
        ("train_filelist_google.txt", "z.jpg 999", "z.jpg 4999", "line 7 has label 4999, outside 0..999"),
        ("train_filelist_google.txt", "0,x.jpg 1", "0,x.jpg", "line 4 has no label: '0,x.jpg' is not a whole number"),
        ("train_filelist_google.txt", "google/q0001/photo 2", "../x", "line 1 names .* outside the data set's folder"),
        ("train_filelist_google.txt", "photo 0,x", "photo 2,x", "an image occurs twice in the training lists"),
        ("val_filelist.txt", "val000001.jpg 0", "val000001.jpg 1", "49 images of class 0, expected 50"),
        ("synsets.txt", "n01440764", "tench", "synsets.txt: line 1 begins with 'tench', expected a WordNet id"),
        ("synsets.txt", WNIDS[4], WNIDS[3], "a WordNet id occurs twice"),
    ],
)
def test_wrong_webvision_lists_are_an_error(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    replace_line(image_sets.webvision(tmp_path) / "info" / file, old, new)
    with pytest.raises(InputError, match=message):
        list_webvision(str(tmp_path), 2)


def test_missing_parts_are_named_with_their_source(tmp_path: Path) -> None:
    root = image_sets.webvision(tmp_path)
    (root / "val_images_256").rename(root / "val")
    with pytest.raises(InputError, match=r"neither val_images_256 nor val_images here; unpack val_images_256.tar"):
        list_webvision(str(root), 2)
    (root / "google").rename(root / "g")
    with pytest.raises(InputError, match=r"google: no such folder; unpack google_resized_256.tar"):
        list_webvision(str(root), 2)
    (root / "info/val_filelist.txt").unlink()
    (root / "info/train_filelist_google.txt").unlink()
    with pytest.raises(InputError, match=r"train_filelist_google.txt is missing; sought in .*info.*data.vision.ee"):
        list_webvision(str(root), 2)


def test_a_class_without_training_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no training image of class 2 \(class 2\)"):
        list_webvision(str(image_sets.webvision(tmp_path)), 3)


@pytest.mark.parametrize("layout", list(image_sets.ILSVRC12))
def test_ilsvrc12_in_each_layout(tmp_path: Path, layout: str) -> None:
    image_sets.ILSVRC12[layout](tmp_path, 4)
    split, remark = list_ilsvrc12(str(tmp_path), WNIDS, 3)
    expected = sorted((label, ilsvrc_name(number)) for number, label in ilsvrc_truth(4) if label < 3)
    assert list(zip(split.labels.tolist(), (Path(name).name for name in split.names), strict=True)) == expected
    assert len(split) == 150 and all(Path(path).is_file() for path in split.paths)
    assert ("cannot be verified" in remark) == (layout == "number")


def test_ilsvrc12_becomes_a_test_set_of_webvision(tmp_path: Path) -> None:
    image_sets.ILSVRC12["wnid"](tmp_path / "i", 2)
    listing = list_webvision(str(image_sets.webvision(tmp_path / "w")), 2, ilsvrc12=str(tmp_path / "i"))
    assert len(listing.splits["ilsvrc12"]) == 100


def test_ilsvrc12_lists_may_give_wordnet_ids(tmp_path: Path) -> None:
    image_sets.ILSVRC12["list"](tmp_path, 2)
    rows = [row.split() for row in (tmp_path / "imagenet_val.txt").read_text().splitlines()]
    image_sets.lines(tmp_path / "imagenet_val.txt", [f"{name} {WNIDS[int(label)]}" for name, label in rows])
    split, _ = list_ilsvrc12(str(tmp_path), WNIDS, 2)
    assert split.labels.tolist() == [0] * 50 + [1] * 50


def test_ilsvrc12_must_be_whole(tmp_path: Path) -> None:
    image_sets.ILSVRC12["wnid"](tmp_path, 2)
    with pytest.raises(InputError, match=rf"{WNIDS[2]}: no such folder; class 2 of WebVision is missing"):
        list_ilsvrc12(str(tmp_path), WNIDS, 3)
    next((tmp_path / "val" / WNIDS[1]).iterdir()).unlink()
    with pytest.raises(InputError, match="49 images of WebVision's class 1, expected 50 of each class"):
        list_ilsvrc12(str(tmp_path), WNIDS, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data / "meta.mat").unlink(), "meta.mat: no such file; it comes with the devkit"),
        (lambda data: (data / "meta.mat").write_bytes(b"junk" * 50), "not the devkit's meta.mat"),
        (
            lambda data: replace_line(data / "ILSVRC2012_validation_ground_truth.txt", "1000", "0"),
            r"ground_truth.txt: line 1 is '0', expected a number in 1..1000",
        ),
        (lambda data: (data.parents[1] / ilsvrc_name(1)).unlink(), "ILSVRC2012_val_00000001.JPEG: no such image"),
    ],
)
def test_a_damaged_devkit(tmp_path: Path, change: object, message: str) -> None:
    image_sets.ILSVRC12["devkit"](tmp_path, 2)
    change(tmp_path / "ILSVRC2012_devkit_t12" / "data")  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        list_ilsvrc12(str(tmp_path), WNIDS, 2)


def test_no_known_layout(tmp_path: Path) -> None:
    image_sets.put(tmp_path / "a.JPEG")
    with pytest.raises(InputError, match=r"no ILSVRC12 validation images in a known layout; expected val/<wnid>/"):
        list_ilsvrc12(str(tmp_path), WNIDS, 2)
