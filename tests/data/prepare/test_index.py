"""The index that training reads: what is broken is left out, refused, or not known yet."""

import logging
import os
from pathlib import Path

import image_sets
import numpy as np
import pyarrow.parquet as pq
import pytest

from fastcpc.config.schema import DataConfig, NoiseConfig
from fastcpc.data.dataset import ImageSplit
from fastcpc.data.labels.noise import make_labels, take_subset
from fastcpc.data.prepare.check_images import ImageCheck
from fastcpc.data.prepare.index import index_path, read_index, write_index
from fastcpc.data.registry import list_images, load_dataset
from fastcpc.errors import InputError, RunError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return image_sets.imagefolder(tmp_path / "set", {"train/a": 6, "train/b": 4, "test/a": 2, "val/b": 1})


def settings(root: Path, **others: object) -> DataConfig:
    return DataConfig(name="imagefolder", root=str(root), **others)  # type: ignore[arg-type]


def write(root: Path, broken: dict[str, str], path: Path | None = None, sizes: dict[str, int] | None = None) -> Path:
    listing = list_images(settings(root))
    names = [name for split in listing.splits.values() for name in split.names]
    target = path or index_path(str(root), "imagefolder")
    known = sizes or {}
    checks = {name: ImageCheck(broken.get(name, ""), "", "JPEG", 48, 40, known.get(name, 9)) for name in names}
    write_index(target, listing, checks)
    return target


def test_a_dataset_without_an_index(root: Path) -> None:
    dataset = load_dataset(settings(root, resize=64, crop=48, random_resized_crop=True, flip=False))
    assert (dataset.image_size, dataset.in_channels, dataset.num_classes) == (48, 3, 2)
    assert dataset.image_transform is not None
    assert (
        dataset.image_transform.resize,
        dataset.image_transform.random_resized_crop,
        dataset.image_transform.flip,
    ) == (64, True, False)
    assert (len(dataset.train), {name: len(split) for name, split in dataset.tests.items()}) == (
        10,
        {"test": 2, "val": 1},
    )
    assert dataset.broken == () and dataset.mean == (0.485, 0.456, 0.406)


def test_the_index_has_a_row_for_each_image(root: Path) -> None:
    table = pq.read_table(write(root, {"train/b/001.jpg": "is empty"}))
    assert table.num_rows == 13
    rows = {row["path"]: row for row in table.to_pylist()}
    assert rows["train/b/001.jpg"]["fault"] == "is empty" and rows["train/b/002.jpg"]["fault"] == ""
    row = rows["test/a/001.jpg"]
    assert (row["split"], row["index"], row["label"], row["trusted_label"], row["width"]) == ("test", 1, 0, None, 48)
    assert not list(root.rglob("*.part"))


def test_broken_training_images_are_left_out_after_the_noise(root: Path) -> None:
    clean = make_labels(load_dataset(settings(root)), NoiseConfig(kind="sym", rate=0.9), 1)
    write(root, {"train/a/002.jpg": "is empty", "train/b/003.jpg": "is empty"})
    dataset = load_dataset(settings(root, max_bad=0.2))
    assert dataset.broken == (2, 9) and len(dataset.train) == 10
    labels = make_labels(dataset, NoiseConfig(kind="sym", rate=0.9), 1)
    assert (labels.given == clean.given).all()
    dataset, labels = take_subset(dataset, labels, 0, 1)
    kept = [0, 1, 3, 4, 5, 6, 7, 8]
    assert isinstance(dataset.train, ImageSplit)
    assert dataset.train.source_index.tolist() == kept and labels.given.tolist() == clean.given[kept].tolist()
    assert dataset.train.names[2] == "train/a/003.jpg" and dataset.train.paths[2].endswith("set/train/a/003.jpg")
    assert labels.trusted is not None
    assert labels.actual_rate == np.mean(labels.given != labels.trusted)


def test_more_than_max_bad_is_refused(root: Path) -> None:
    write(root, {"train/a/002.jpg": "is empty", "train/b/003.jpg": "is empty"})
    message = r"2 of 10 training images are broken, more than data.max_bad=0.1.*train/a/002.jpg \(is empty\)"
    with pytest.raises(InputError, match=message):
        load_dataset(settings(root, max_bad=0.1))


def test_a_test_set_must_be_whole(root: Path) -> None:
    write(root, {"test/a/001.jpg": "is empty"})
    with pytest.raises(InputError, match=r"test/a/001.jpg: is empty; 1 broken images in the test set"):
        load_dataset(settings(root, max_bad=1))


def test_images_newer_than_the_index_are_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(root, {})
    image_sets.put(root / "train/a/new.jpg")
    with caplog.at_level(logging.WARNING, "fastcpc"):
        assert len(load_dataset(settings(root)).train) == 11
    assert "1 of 11 train images are not in it; run fastcpc-prepare again" in caplog.text


def test_an_index_elsewhere(root: Path, tmp_path: Path) -> None:
    path = write(root, {"train/a/000.jpg": "is empty"}, tmp_path / "i.parquet")
    assert load_dataset(settings(root)).broken == ()
    assert load_dataset(settings(root, index=str(path), max_bad=0.1)).broken == (0,)
    with pytest.raises(InputError, match=r"data.index=.*no.parquet: no such file; fastcpc-prepare imagefolder --root"):
        load_dataset(settings(root, index=str(tmp_path / "no.parquet")))


def test_index_of_another_data_set_is_refused(root: Path) -> None:
    path = write(root, {})
    path.rename(path.with_name("webvision.parquet"))
    with pytest.raises(InputError, match="not an index of webvision that this version reads; run fastcpc-prepare"):
        read_index(str(root), "webvision")
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"imagefolder.parquet: not an index \(.*; run fastcpc-prepare imagefolder"):
        read_index(str(root), "imagefolder")


def test_an_index_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    image_sets.put(tmp_path / "file")
    with pytest.raises(RunError, match=r"i.parquet: cannot be written \(.*\); --out names another file"):
        write(root, {}, tmp_path / "file" / "i.parquet")


def test_trusted_labels_of_images(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,{i % 2},{'test' if i > 7 else 'train'},{i // 2 % 2}" for i in range(10)]
    listed = image_sets.lines(tmp_path / "l.csv", ["path,label,split,trusted_label", *rows])
    dataset = load_dataset(settings(tmp_path, list=str(listed)))
    labels = make_labels(dataset, NoiseConfig(), 1)
    assert labels.given.tolist() == [0, 1] * 4 and labels.actual_rate == 0.5
    assert labels.trusted is not None and labels.trusted.tolist() == [0, 0, 1, 1] * 2
    with pytest.raises(InputError, match=r"noise.kind=sym: imagefolder has given and trusted labels already"):
        make_labels(dataset, NoiseConfig(kind="sym", rate=0.5), 1)
    image_sets.lines(listed, ["path,label,split,trusted_label", *rows[:-3], "7.jpg,1,train,", *rows[-2:]])
    assert make_labels(load_dataset(settings(tmp_path, list=str(listed))), NoiseConfig(), 1).trusted is None


def test_labels_of_folders_are_trusted_only_where_noise_is_put_on(root: Path) -> None:
    dataset = load_dataset(settings(root))
    plain = make_labels(dataset, NoiseConfig(), 1)
    assert plain.trusted is None and plain.actual_rate is None and plain.given.tolist() == [0] * 6 + [1] * 4
    noisy = make_labels(dataset, NoiseConfig(kind="asym_next", rate=0.4), 1)
    assert noisy.trusted is not None and (noisy.trusted == plain.given).all()
    assert noisy.actual_rate == 0.4 and (noisy.given != noisy.trusted).sum() == 4


def test_asym_next_wraps(tmp_path: Path) -> None:
    root = image_sets.imagefolder(tmp_path, {f"train/{name}": 3 for name in "abc"} | {"test/a": 1})
    labels = make_labels(load_dataset(settings(root)), NoiseConfig(kind="asym_next", rate=1.0), 1)
    assert labels.given.tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]


def test_pairs_of_classes_by_name(tmp_path: Path) -> None:
    root = image_sets.imagefolder(tmp_path, {f"train/{name}": 3 for name in "abc"} | {"test/a": 1})
    dataset = load_dataset(settings(root))
    labels = make_labels(dataset, NoiseConfig(kind="asym_pairs", rate=1.0, pairs="c -> a,a->b"), 1)
    assert labels.given.tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    for pairs, message in (
        ("a -> b, c", r"'c' is no pair; write 'class -> class'"),
        ("a -> d", r"imagefolder has no class 'd'"),
        ("a -> b, a -> c", r"a is given twice; each class may be mistaken for one other"),
        ("a -> a", r"a is mistaken for itself"),
    ):
        with pytest.raises(InputError, match=f"noise.pairs: .*{message}"):
            make_labels(dataset, NoiseConfig(kind="asym_pairs", rate=0.4, pairs=pairs), 1)


def test_a_broken_image_that_was_replaced_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "train/a/002.jpg"
    (root / name).write_bytes(b"not a JPEG")
    write(root, {name: "is no image"}, sizes={name: 10})
    again = f"; 1 of them have changed since ({name}): run fastcpc-prepare again"
    with pytest.raises(InputError) as refused:
        load_dataset(settings(root, max_bad=0.05))
    assert again not in str(refused.value)
    image_sets.put(root / name)
    os.utime(root / name, (0, 0))  # an old file, as an archive gives it: its size tells
    with pytest.raises(InputError) as refused:
        load_dataset(settings(root, max_bad=0.05))
    assert str(refused.value).endswith(again)
    load_dataset(settings(root, max_bad=0.2))
    assert f"1 broken training images are left out{again}" in caplog.text


def test_a_broken_image_of_the_same_size_is_known_by_its_time(root: Path) -> None:
    name = "test/a/000.jpg"
    (root / name).write_bytes(b"not a JPEG")
    index = write(root, {name: "is no image"}, sizes={name: 10})
    with pytest.raises(InputError) as refused:
        load_dataset(settings(root))
    assert "changed since" not in str(refused.value)
    later = index.stat().st_mtime + 5
    os.utime(root / name, (later, later))
    with pytest.raises(InputError, match=r"1 of them have changed since \(test/a/000.jpg\): run fastcpc-prepare again"):
        load_dataset(settings(root))
