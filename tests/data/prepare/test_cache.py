"""Images resized once: the same views without a decode; a cache that is stale, cut off or foreign is refused."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_sets
import pytest
import torch
from made_images import CPU, FOUR, batches_of, same, texture
from PIL import Image
from torchvision.transforms import v2

from fastcpc.cli.prepare import main
from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.data.dataset import Dataset
from fastcpc.data.loaders import image_loader
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.loaders.factory import describe_loader, make_loader
from fastcpc.data.prepare import cache as cache_module
from fastcpc.data.registry import load_dataset
from fastcpc.errors import InputError, RunError

needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")
each_loader = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])
SIDE = 36
Capture = pytest.CaptureFixture[str]


def images(root: Path, num: int = 9) -> Path:
    """Images larger than the cache, of its size, and smaller; one of them turned by EXIF."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for k in range(2):
        for i in range(num):
            height, width = ((80, 60), (36, 50), (30, 90))[i % 3]
            path = root / "train" / f"class{k}" / f"{i}, x.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(texture(height, width, 10 * k + i))
            image.save(path, **({"exif": turned} if i == 4 else {}))
    image_sets.imagefolder(root, {"test/class0": 2})
    return root


def prepare(root: Path, *options: str) -> int:
    return main(["imagefolder", "--root", str(root), "--jobs", "1", *options])


def settings(root: Path, **changes: Any) -> DataConfig:
    return DataConfig(name="imagefolder", root=str(root), resize=SIDE, crop=32, workers=2, **changes)


def loader(data: DataConfig, dataset: Dataset | None = None) -> Any:
    dataset = dataset or load_dataset(data)
    return make_loader(dataset.train, dataset, data, AugmentConfig(), CPU)


@each_loader
@pytest.mark.parametrize("boxes", [False, True])
def test_views_from_the_cache_are_those_of_the_files(tmp_path: Path, name: Any, boxes: bool) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    data = settings(root, feed=name, random_resized_crop=boxes)
    cached, decoded = loader(data), loader(replace(data, cache="off", feed="torch"))
    views = ("test", "weak", "weak")
    ours, theirs = (list(one.stream(batches_of(18), views, 3)) for one in (cached, decoded))
    assert cached.decoder.num_decoded == 0 and decoded.decoder.num_decoded == 18
    for a, b in zip(ours, theirs, strict=True):
        assert a.index.equal(b.index)
        for number in range(1 if boxes else 3):
            assert a.views[number].equal(b.views[number])
        if boxes:  # cropped from the resized image instead of the image: the same place, a little blurred
            apart = (levels_of(data, a.views[1]) - levels_of(data, b.views[1])).abs().mean()
            assert apart < 20
    again = list(loader(data).stream(batches_of(18), views, 3))
    assert same(ours, again)


def levels_of(data: DataConfig, views: torch.Tensor) -> torch.Tensor:
    dataset = load_dataset(data)
    return (views * torch.tensor(dataset.std).view(3, 1, 1) + torch.tensor(dataset.mean).view(3, 1, 1)) * 255


def test_the_test_view_is_torchvisions_resize_and_crop(tmp_path: Path) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    data = settings(root, feed="torch")
    dataset = load_dataset(data)
    transform = v2.Compose([v2.Resize(SIDE), v2.CenterCrop(32), v2.PILToTensor()])
    (batch,) = loader(data, dataset).stream([torch.arange(4)], ("test",), 1)
    found = levels_of(data, batch.views[0]).round()
    for row in range(4):
        image = Image.open(dataset.train.paths[row])  # type: ignore[union-attr]
        expected = transform(image).float()
        assert (found[row] - expected).abs().max() <= (0 if min(image.size) >= SIDE else 3)


@each_loader
def test_strong_views_and_a_later_start(tmp_path: Path, name: Any) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    one = loader(settings(root, feed=name))
    whole = list(one.stream(batches_of(18), FOUR, 7))
    assert same(whole[2:], list(one.stream(batches_of(18), FOUR, 7, 2)))


@each_loader
def test_images_that_are_not_in_the_cache_are_decoded(
    tmp_path: Path, name: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    for number in range(3):
        Image.fromarray(texture(50, 50, 70 + number)).save(root / "train" / "class1" / f"new{number}.png")
    one, bare = loader(settings(root, feed=name)), loader(settings(root, feed=name, cache="off"))
    assert "3 of 21 images are not in it and are decoded" in caplog.text
    line, bare_line = (
        describe_loader(load_dataset(data), data, CPU)
        for data in (settings(root, feed=name), settings(root, feed=name, cache="off"))
    )
    table = root / ".fastcpc-index" / "imagefolder.cache-36.parquet"
    assert line == f"{bare_line} for images that are not in the cache {table}"
    ours, theirs = (list(each.stream(batches_of(21, 4), ("weak", "test"), 1)) for each in (one, bare))
    for a, b in zip(ours, theirs, strict=True):
        assert a.index.equal(b.index)
        assert all((x - y).abs().max() < 0.1 for x, y in zip(a.views, b.views, strict=True))
    assert 3 <= one.decoder.num_decoded < 21 == bare.decoder.num_decoded


@needs_dali
def test_a_batch_of_cached_and_decoded_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chunks come as finished values or as levels, whatever their decoder does."""
    monkeypatch.setattr(image_loader, "CHUNK", 2)
    root = images(tmp_path, 3)
    assert prepare(root, "--cache", str(SIDE)) == 0
    Image.fromarray(texture(50, 50, 70)).save(root / "train" / "class1" / "new.png")
    mixed, bare = (loader(settings(root, feed="dali", cache=cache)) for cache in ("auto", "off"))
    for ours, theirs in zip(*(one.stream(batches_of(7, 7), FOUR, 2) for one in (mixed, bare)), strict=True):
        for a, b in zip(ours.views, theirs.views, strict=True):
            assert (a - b).abs().mean() < 0.1
    assert 0 < mixed.decoder.num_decoded < 7


def test_bad_cached_image_is_replaced_by_one_of_another_size(tmp_path: Path) -> None:
    """Its file broke after it was cached, and was met in a batch that had to be decoded."""
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    data = settings(root, feed="torch", max_bad=0.1)
    cached, decoded = loader(data), loader(replace(data, cache="off"))
    for one in (cached, decoded):
        one.decoder.bad.rows |= {0, 1, 2, 11}  # of each size
    ours, theirs = (list(one.stream(batches_of(18), ("weak", "weak"), 3)) for one in (cached, decoded))
    assert same(ours, theirs) and not {0, 1, 2, 11} & set(torch.cat([batch.index for batch in ours]).tolist())


def test_a_broken_image_is_left_out_of_the_cache(tmp_path: Path) -> None:
    root = images(tmp_path)
    broken = root / "train" / "class0" / "3, x.png"
    broken.write_bytes(broken.read_bytes()[:400])
    assert prepare(root, "--cache", str(SIDE), "--max-bad", "0.1") == 0
    data = settings(root, feed="torch", max_bad=0.1)
    one = loader(data)
    seen = torch.cat([batch.index for batch in one.stream(batches_of(18), ("weak",), 1)])
    assert 3 not in seen.tolist() and one.decoder.num_decoded == 0


def change(path: Path) -> None:
    Image.fromarray(texture(40, 40, 99)).save(path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: change(root / "train/class1/2, x.png"), "is not the file that was cached"),
        (lambda root: os.utime(root / "train/class1/2, x.png", (1, 1)), "is not the file that was cached"),
        (lambda root: (root / "train/class1/2, x.png").unlink(), None),
        (lambda root: os.truncate(root / ".fastcpc-index/imagefolder.cache-36.bin", 5000), "was cut off or replaced"),
        (lambda root: (root / ".fastcpc-index/imagefolder.cache-36.bin").unlink(), "not a cache that can be read"),
        (lambda root: (root / ".fastcpc-index/imagefolder.cache-36.parquet").write_text("x"), "not a cache"),
    ],
)
def test_a_stale_or_damaged_cache_is_refused(tmp_path: Path, harm: Any, message: str | None) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    harm(root)
    if message is None:  # an image that is gone is no longer in the set
        assert loader(settings(root, feed="torch")).num_samples == 17
        return
    with pytest.raises(InputError, match=f"{message}.*fastcpc-prepare imagefolder --root .* --cache 36.*cache=off"):
        loader(settings(root, feed="torch"))
    assert loader(settings(root, feed="torch", cache="off")).num_samples == 18


def test_table_and_pixels_of_two_caches_are_refused(tmp_path: Path) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    table = root / ".fastcpc-index/imagefolder.cache-36.parquet"
    old = table.read_bytes()
    assert prepare(root, "--cache", str(SIDE)) == 0
    table.write_bytes(old)  # as a kill between the two would leave it
    with pytest.raises(InputError, match="was cut off or replaced"):
        loader(settings(root, feed="torch"))


def test_cache_of_another_size_is_not_used(tmp_path: Path) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    other = loader(replace(settings(root, feed="torch"), resize=40))
    assert len(list(other.stream(batches_of(18), ("test",), 1))) and other.decoder.num_decoded == 18
    named = str(root / ".fastcpc-index/imagefolder.cache-36.parquet")
    with pytest.raises(InputError, match=r"made for data.resize=36, which is 40"):
        loader(replace(settings(root, feed="torch", cache=named), resize=40))
    with pytest.raises(InputError, match=r"data.cache=none.parquet: no such file"):
        loader(settings(root, feed="torch", cache="none.parquet"))


def test_full_disk_is_reported_before_decoding(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = images(tmp_path)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage)
    assert prepare(root, "--cache", str(SIDE)) == 1
    assert "the cache of 20 images needs about 0.0 GB, and 0.0 GB are free" in capsys.readouterr().err
    assert not list((root / ".fastcpc-index").glob("*cache*"))


def test_error_while_writing_leaves_the_old_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    before = {path.name: path.read_bytes() for path in (root / ".fastcpc-index").glob("*cache*")}
    monkeypatch.setattr(cache_module.CacheWriter, "add", lambda *_: (_ for _ in ()).throw(RunError("disk full")))
    assert prepare(root, "--cache", str(SIDE)) == 1
    assert {path.name: path.read_bytes() for path in (root / ".fastcpc-index").glob("*cache*")} == before


def test_failed_write_of_the_table_leaves_the_old_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = images(tmp_path)
    assert prepare(root, "--cache", str(SIDE)) == 0
    before = {path.name: path.read_bytes() for path in (root / ".fastcpc-index").glob("*cache*")}
    monkeypatch.setattr(cache_module.pq, "write_table", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    assert prepare(root, "--cache", str(SIDE)) == 1
    assert {path.name: path.read_bytes() for path in (root / ".fastcpc-index").glob("*cache*")} == before


def test_file_bytes_are_kept_up_to_the_budget(tmp_path: Path) -> None:
    root = images(tmp_path)
    for name in ("torch", *(() if dali_problem() else ("dali",))):
        plain = loader(settings(root, feed=name))
        expected = [list(plain.stream(batches_of(18, seed=seed), FOUR, seed)) for seed in (1, 2)]
        kept = loader(settings(root, feed=name, ram_cache=1.0))
        assert same(
            expected[0] + expected[1], [b for s in (1, 2) for b in kept.stream(batches_of(18, seed=s), FOUR, s)]
        )
        assert (kept.decoder.files.num_read, kept.decoder.files.num_kept) == (18, 18)
        sizes = [os.path.getsize(path) for path in load_dataset(settings(root)).train.paths]  # type: ignore[union-attr]
        small = loader(settings(root, feed=name, ram_cache=sum(sizes) / 2e9))
        assert same(expected[0], list(small.stream(batches_of(18, seed=1), FOUR, 1)))
        assert 0 < small.decoder.files.kept_bytes <= sum(sizes) / 2 and 0 < small.decoder.files.num_kept < 18


def test_wrong_sizes_are_one_line(tmp_path: Path, capsys: Capture) -> None:
    root = images(tmp_path)
    for size, message in (
        ("4", "data.resize=4: must be 0 or 8 or more"),
        ("big", "data.resize=big: must be a whole number"),
    ):
        assert prepare(root, "--cache", size) == 2
        assert message in capsys.readouterr().err
    assert not (root / ".fastcpc-index").exists()
