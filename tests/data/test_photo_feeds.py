"""Feeds of image files: geometry by value, both decoders on the same files, damaged files, whole runs."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import StopAfter, assert_same_run, run, small_config
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

from fastcpc.config.schema import AugmentConfig, Config, DataConfig
from fastcpc.data import feeds, photo_feed
from fastcpc.data.feed import Batch, ViewName
from fastcpc.data.feeds import choose_feed, make_feed
from fastcpc.data.geometry import NUM_CROP, NUM_RESIZED, PhotoGeometry
from fastcpc.data.photo_dali import dali_fault
from fastcpc.data.photo_feed import PhotoFeed
from fastcpc.data.photo_files import BadImage, photo_head, read_photo
from fastcpc.data.policies import AUTOAUGMENT_IMAGENET, WeakPolicy
from fastcpc.data.sampler import sequential_batches
from fastcpc.data.seeds import generator
from fastcpc.data.split import Dataset, PhotoSplit, PhotoTransform, Split
from fastcpc.engine.interrupt import Stopped
from fastcpc.errors import InputError, RunError

CPU = torch.device("cpu")
needs_dali = pytest.mark.skipif(bool(dali_fault()), reason="needs nvidia.dali")
each_feed = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])
FOUR: tuple[ViewName, ...] = ("weak", "weak", "strong", "strong")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def texture(height: int, width: int, seed: int, channels: int = 3) -> np.ndarray:
    """Noise with some smoothness, so that a shift by one pixel shows."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 8), max(2, width // 8), channels))
    planes = [Image.fromarray(coarse[..., c].astype(np.uint8)).resize((width, height)) for c in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def odd_files(folder: Path) -> list[Path]:
    """What is met in web sets, each readable."""
    rgb = Image.fromarray(texture(61, 83, 0))
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(texture(61, 83, 1)[..., 0]))
    deep = texture(40, 50, 2)[..., 0].astype(np.uint16) * 257
    saved: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain.jpg": (rgb, {"quality": 90}),
        "tall.jpg": (Image.fromarray(texture(301, 97, 3)), {}),
        "grey.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (Image.fromarray(texture(70, 60, 4, 4), "CMYK"), {}),
        **{f"exif{o}.jpg": (rgb, {"exif": turned(o)}) for o in (2, 3, 5, 6, 8)},
        "really_png.jpg": (rgb, {"format": "PNG"}),
        "really_gif.jpg": (rgb.quantize(64), {"format": "GIF"}),
        "alpha.png": (alpha, {}),
        "palette.png": (rgb.quantize(64), {"transparency": b"\x00\x80\xff"}),
        "deep.png": (Image.fromarray(deep), {}),
        "one.jpg": (Image.new("RGB", (1, 1), (200, 30, 60)), {}),
        "photo.webp": (rgb, {"lossless": True}),
    }
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    return [folder / name for name in saved]


def plain_files(folder: Path, num: int) -> list[Path]:
    paths = [folder / f"photo, {number}.jpg" for number in range(num)]  # with a comma and a blank, as in Clothing1M
    for number, path in enumerate(paths):
        Image.fromarray(texture(40 + number, 90 - number, 100 + number)).save(path, quality=90)
    return paths


def dataset_of(paths: Sequence[Path], *, resized: bool = False, crop: int = 24) -> Dataset:
    num = len(paths)
    split = PhotoSplit(
        tuple(map(str, paths)), np.zeros(num, np.int64), None, np.arange(num), tuple(path.name for path in paths)
    )
    transform = PhotoTransform(resize=28, crop=crop, random_resized_crop=resized, flip=True)
    return Dataset("photos", ("a", "b"), split, {}, MEAN, STD, WeakPolicy(True, 0), photo=transform)


def feed_of(dataset: Dataset, name: Any, bad_list: Path | None = None, max_bad: float = 0.0) -> PhotoFeed:
    data = DataConfig(feed=name, workers=2, max_bad=max_bad)
    feed = make_feed(dataset.train, dataset, data, AugmentConfig(), CPU, bad_list)
    assert isinstance(feed, PhotoFeed)
    return feed


def batches_of(num: int, size: int = 5, seed: int = 1) -> list[torch.Tensor]:
    return list(torch.randperm(num, generator=generator(seed)).split(size))


def levels(views: torch.Tensor) -> torch.Tensor:
    """Back to 0..255."""
    return (views * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.index.equal(b.index) and all(x.equal(y) for x, y in zip(a.views, b.views, strict=True))
        for a, b in zip(first, second, strict=True)
    )


# ---- geometry ----


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (28, 28), (1, 1), (333, 29)])
def test_test_view_is_resize_then_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(texture(*size, 5)).save(path)
    (batch,) = feed_of(dataset_of([path]), "torch").stream([torch.tensor([0])], ["test"], 1)
    height, width = size
    tall, wide = int(28 * height / min(size)), int(28 * width / min(size))
    resized = np.asarray(read_photo(str(path)).resize((wide, tall), Image.Resampling.BILINEAR))
    top, left = round((tall - 24) / 2), round((wide - 24) / 2)
    expected = torch.from_numpy(resized[top : top + 24, left : left + 24].copy()).permute(2, 0, 1)
    apart = (levels(batch.views[0][0]) - expected).abs()
    assert apart.max() < 2.01 and apart.mean() < 0.1  # Pillow rounds between rows and columns


def test_weak_boxes_are_crops_of_the_resized_photo() -> None:
    geometry = PhotoGeometry(PhotoTransform(resize=28, crop=24, random_resized_crop=False, flip=True))
    drawn = geometry.draw("weak", 4000, generator(3))
    assert drawn.shape == (4000, NUM_CROP)
    boxes = geometry.boxes(drawn, np.tile([[56, 140]], (4000, 1)))  # resized to 28 x 70: half its size
    mirrored = boxes[:, 1] > boxes[:, 3]
    left = np.where(mirrored, boxes[:, 3], boxes[:, 1])
    assert set(boxes[:, 0]) == {0.0, 2.0, 4.0, 6.0, 8.0}
    assert set(left) == {2.0 * place for place in range(47)}
    assert np.allclose(boxes[:, 2] - boxes[:, 0], 48) and np.allclose(np.abs(boxes[:, 3] - boxes[:, 1]), 48)
    assert 0.46 < mirrored.mean() < 0.54


def test_random_resized_boxes() -> None:
    geometry = PhotoGeometry(PhotoTransform(resize=28, crop=24, random_resized_crop=True, flip=False))
    drawn = geometry.draw("weak", 3000, generator(3))
    assert drawn.shape == (3000, NUM_RESIZED)
    top, left, bottom, right = geometry.boxes(drawn, np.tile([[400, 500]], (3000, 1))).T
    assert min(top.min(), left.min()) >= 0 and bottom.max() <= 400 and right.max() <= 500
    share, aspect = (bottom - top) * (right - left) / 200_000, (right - left) / (bottom - top)
    assert 0.079 < share.min() < 0.1 and 0.9 < share.max() <= 1
    assert 0.74 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.35
    assert np.array_equal(geometry.boxes(drawn[:1], np.array([[1, 3000]])), [[0, 1499, 1, 1500]])  # no try fits
    assert np.array_equal(geometry.boxes(drawn[:1], np.array([[3000, 30]])), [[1480, 0, 1520, 30]])


def test_imagenet_policy_is_torchvisions() -> None:
    theirs = AutoAugment(AutoAugmentPolicy.IMAGENET)._policies
    ours = [tuple((choice.op, choice.probability, choice.bin) for choice in row) for row in AUTOAUGMENT_IMAGENET]
    assert ours == theirs


# ---- reading ----


def test_pixels_of_odd_files(tmp_path: Path) -> None:
    read = {path.name: np.asarray(read_photo(str(path))).astype(int) for path in odd_files(tmp_path)}
    rgb = texture(61, 83, 0).astype(int)
    assert all(pixels.ndim == 3 and pixels.shape[2] == 3 for pixels in read.values())
    for name in ("really_png.jpg", "alpha.png", "photo.webp"):
        assert np.array_equal(read[name], rgb), name
    assert np.array_equal(read["deep.png"], np.repeat(texture(40, 50, 2)[..., :1], 3, axis=2))
    upright = {"exif2.jpg": rgb[:, ::-1], "exif3.jpg": rgb[::-1, ::-1], "exif5.jpg": rgb.transpose(1, 0, 2)}
    upright |= {"exif6.jpg": np.rot90(rgb, -1), "exif8.jpg": np.rot90(rgb, 1)}
    for name, pixels in upright.items():
        assert np.abs(read[name] - pixels).mean() < 8, name
    for name, pixels in read.items():
        head = photo_head(str(tmp_path / name))
        assert (head.height, head.width) == pixels.shape[:2], name


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated.jpg": (lambda raw: raw[: len(raw) // 2], "truncated"),
    "empty.jpg": (lambda raw: b"", "empty"),
    "text.jpg": (lambda raw: b"<html>not found</html>", "not an image"),
    "head.jpg": (lambda raw: raw[:200], "."),
}


def damaged_files(folder: Path) -> list[Path]:
    buffer = io.BytesIO()
    Image.fromarray(texture(120, 90, 7)).save(buffer, format="JPEG")
    for name, (harm, _) in DAMAGE.items():
        (folder / name).write_bytes(harm(buffer.getvalue()))
    return [*(folder / name for name in DAMAGE), folder / "missing.jpg"]


def test_damage_is_named(tmp_path: Path) -> None:
    for path in damaged_files(tmp_path):
        with pytest.raises(BadImage, match=DAMAGE.get(path.name, (None, "no such file"))[1]):
            read_photo(str(path))


# ---- streams ----


@needs_dali
@pytest.mark.parametrize("resized", [False, True])
def test_both_decoders_agree(tmp_path: Path, resized: bool) -> None:
    """Same geometry on the same numbers, same index for every image, whatever the file holds."""
    dataset = dataset_of([*odd_files(tmp_path), *plain_files(tmp_path, 5)], resized=resized)
    batches, views = batches_of(len(dataset.train)), ("test", "weak", "weak", "strong")
    torch_batches, dali_batches = (list(feed_of(dataset, name).stream(batches, views, 5)) for name in ("torch", "dali"))
    for ours, theirs, asked in zip(torch_batches, dali_batches, batches, strict=True):
        assert ours.index.equal(asked) and theirs.index.equal(asked)
        for a, b in zip(ours.views[:3], theirs.views[:3], strict=True):
            assert a.shape == (len(asked), 3, 24, 24) and a.is_contiguous(memory_format=torch.channels_last)
            apart = (levels(a) - levels(b)).abs()
            assert apart.mean(dim=(1, 2, 3)).max() < 0.7  # level of 255
            assert apart.max() < 4.1
        apart = (levels(ours.views[3]) - levels(theirs.views[3])).abs()
        assert apart.mean() < 4  # solarize and posterize turn one level into many


@each_feed
@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_later_start_is_the_tail_of_the_stream(tmp_path: Path, name: str, start: int) -> None:
    feed, batches = feed_of(dataset_of(plain_files(tmp_path, 13), resized=True), name), batches_of(13)
    whole = list(feed.stream(batches, FOUR, 11))
    assert len(whole) == 3
    assert same(whole[start:], list(feed.stream(batches, FOUR, 11, start)))
    assert not same(whole, list(feed.stream(batches, FOUR, 12)))
    for i in range(4):
        assert not any(whole[0].views[i].equal(whole[0].views[j]) for j in range(i))


@each_feed
def test_batches_larger_than_a_chunk(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, batches = dataset_of(plain_files(tmp_path, 13)), batches_of(13, 9)
    whole = list(feed_of(dataset, name).stream(batches, FOUR, 2))
    monkeypatch.setattr(photo_feed, "CHUNK", 4)
    assert same(whole, list(feed_of(dataset, name).stream(batches, FOUR, 2)))


@each_feed
def test_each_photo_is_decoded_once_for_four_views(tmp_path: Path, name: str) -> None:
    feed, batches = feed_of(dataset_of(plain_files(tmp_path, 13)), name), batches_of(13)
    assert sorted(torch.cat([batch.index for batch in feed.stream(batches, FOUR, 1)]).tolist()) == list(range(13))
    assert feed.decoder.num_decoded == 13


def test_pillow_opens_each_file_once_for_four_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    true_read = read_photo
    monkeypatch.setattr("fastcpc.data.photo_torch.read_photo", lambda path: opened.append(path) or true_read(path))
    dataset = dataset_of(plain_files(tmp_path, 7))
    assert len(list(feed_of(dataset, "torch").stream(batches_of(7), FOUR, 1))) == 2
    assert sorted(opened) == sorted(dataset.train.paths)  # type: ignore[union-attr]


@needs_dali
def test_dalis_graph_decodes_once_and_is_built_once(tmp_path: Path) -> None:
    feed: Any = feed_of(dataset_of(plain_files(tmp_path, 13)), "dali")
    for epoch in range(3):
        list(feed.stream(batches_of(13, seed=epoch), FOUR, epoch))
        list(feed.stream(sequential_batches(13, 8), ("test",), 0))
    assert feed.decoder.num_built == 2  # one for four views, one for one
    (lane,) = feed.decoder._idle[4]
    (single,) = feed.decoder._idle[1]
    graph, of_one_view = lane._pipeline.serialize(), single._pipeline.serialize()
    assert graph.count(b"decoders__Image") == of_one_view.count(b"decoders__Image") == 1
    assert graph.count(b"Resize") == 4 * of_one_view.count(b"Resize") > 0


@each_feed
def test_no_batch_of_an_old_order(tmp_path: Path, name: str) -> None:
    """A new list right after a whole stream, after a stream that was left early, and beside an open one."""
    feed = feed_of(dataset_of(plain_files(tmp_path, 13)), name)
    old, new = batches_of(13, 3, seed=1), batches_of(13, 3, seed=2)
    expected = list(feed.stream(new, ("weak", "strong"), 4))
    list(feed.stream(old, ("weak", "strong"), 3))
    assert same(expected, list(feed.stream(new, ("weak", "strong"), 4)))
    left = iter(feed.stream(old, ("weak", "strong"), 3))
    assert next(left).index.equal(old[0])
    assert same(expected, list(feed.stream(new, ("weak", "strong"), 4)))
    assert next(left).index.equal(old[1])
    left.close()  # type: ignore[attr-defined]
    assert same(expected, list(feed.stream(new, ("weak", "strong"), 4)))


@each_feed
def test_an_empty_list_and_a_wrong_one(tmp_path: Path, name: str) -> None:
    feed = feed_of(dataset_of(plain_files(tmp_path, 2)), name)
    assert list(feed.stream([], ("weak",), 1)) == []
    for batches, views, start in (([torch.tensor([2])], ("weak",), 0), ([torch.tensor([0])], ("side",), 0),
                                  ([torch.tensor([0])], ("weak",), 2)):  # fmt: skip
        with pytest.raises(ValueError):
            feed.stream(batches, views, 1, start)  # type: ignore[arg-type]


# ---- damaged files ----


@each_feed
def test_bad_files_are_named_counted_and_replaced(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = plain_files(tmp_path, 11), damaged_files(tmp_path)
    dataset, listed = dataset_of([*good, *bad]), tmp_path / "bad.txt"
    feed = feed_of(dataset, name, listed, max_bad=0.5)
    batches = batches_of(16)
    first = list(feed.stream(batches, FOUR, 1))
    assert [len(batch.index) for batch in first] == [5, 5, 5, 1]
    for batch, asked in zip(first, batches, strict=True):
        kept = asked < 11
        assert batch.index[kept].equal(asked[kept])
        assert (batch.index < 11).all()  # the label that goes with the image is that of the stand-in
        if kept.any():
            assert set(batch.index.tolist()) <= set(asked.tolist())  # it comes from the same list
    lines = [line.split("\t") for line in listed.read_text().splitlines()]
    assert sorted(Path(path).name for path, _ in lines) == sorted(path.name for path in bad)
    assert all(reason for _, reason in lines)
    assert all(path.name in caplog.text for path in bad)
    again = feed_of(dataset, name, listed, max_bad=0.5)  # as after a resume: damage is not known beforehand
    assert same(first[1:], list(again.stream(batches, FOUR, 1, 1)))
    assert len(listed.read_text().splitlines()) == 5


@each_feed
def test_scoring_brings_each_index_once_damaged_or_not(tmp_path: Path, name: str) -> None:
    feed = feed_of(dataset_of([*plain_files(tmp_path, 3), *damaged_files(tmp_path)]), name, max_bad=1.0)
    (batch,) = feed.stream([torch.arange(8)], ("test",), 1)
    assert batch.index.equal(torch.arange(8))
    assert (levels(batch.views[0][3:]) - torch.tensor([128.0, 102, 76]).view(3, 1, 1)).abs().max() < 0.51
    assert batch.views[0][:3].abs().amax(dim=(1, 2, 3)).min() > 0.5


@each_feed
def test_too_many_bad_files_end_the_run(tmp_path: Path, name: str) -> None:
    listed = tmp_path / "bad.txt"
    dataset = dataset_of([*plain_files(tmp_path, 15), *damaged_files(tmp_path)])
    feed = feed_of(dataset, name, listed, max_bad=0.1)
    with pytest.raises(RunError, match=r"3 of 20 images cannot be read, more than data.max_bad=0.1 .*bad\.txt"):
        list(feed.stream(batches_of(20), FOUR, 1))
    assert len(listed.read_text().splitlines()) == 3
    test_set = replace(dataset, train=dataset.train.take(np.arange(3)), tests={"test": dataset.train})
    data = DataConfig(feed=name, workers=1, max_bad=1.0)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="a test set must be whole"):
        list(make_feed(test_set.tests["test"], test_set, data, AugmentConfig(), CPU).stream(batches_of(20), FOUR, 1))


@each_feed
def test_nothing_readable(tmp_path: Path, name: str) -> None:
    feed = feed_of(dataset_of(damaged_files(tmp_path)), name, max_bad=1.0)
    with pytest.raises(RunError, match="no image of the data set can be read"):
        list(feed.stream(batches_of(5), FOUR, 1))


# ---- choice ----


def test_auto_says_what_it_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = dataset_of(plain_files(tmp_path, 1))
    monkeypatch.setattr(feeds, "dali_fault", lambda: "")
    assert choose_feed(photos, DataConfig(), CPU)[0] == "dali"
    monkeypatch.setattr(feeds, "dali_fault", lambda: "nvidia.dali is not installed")
    name, why = choose_feed(photos, DataConfig(), CPU)
    assert name == "torch" and "pip install fastcpc[dali]" in why
    with pytest.raises(InputError, match=r"data.feed=dali: nvidia.dali is not installed; pip install fastcpc\[dali\]"):
        choose_feed(photos, DataConfig(feed="dali"), CPU)
    with pytest.raises(InputError, match=r"data\.feed=memory"):
        choose_feed(photos, DataConfig(feed="memory"), CPU)
    pixels = replace(photos, train=Split(torch.zeros(1, 3, 8, 8).byte(), np.zeros(1, np.int64), np.arange(1), ("a",)))
    assert choose_feed(pixels, DataConfig(), CPU)[0] == "memory"
    with pytest.raises(InputError, match=r"data\.feed=torch: serves image files"):
        choose_feed(pixels, DataConfig(feed="torch"), CPU)


# ---- whole runs ----


def photo_config(root: Path, folder: Path, feed: str) -> Config:
    config = small_config(folder, noise={"kind": "asym_next", "rate": 0.3})
    data = DataConfig(name="imagefolder", root=str(root), feed=feed, workers=2, resize=36, crop=32, max_bad=0.05)  # type: ignore[arg-type]
    return replace(
        config,
        data=data,
        model=replace(config.model, name="preact_resnet18", width=16),
        train=replace(config.train, epochs=2, warmup_epochs=1, batch_size=8, lr_drop_epoch=1, score_batch_size=32),
        cleaner=replace(config.cleaner, warmup=0.0),
        augment=AugmentConfig(strong="autoaugment"),
    )


@each_feed
def test_two_epochs_with_a_broken_photo_and_a_stop(tmp_path: Path, name: str) -> None:
    """From the folder to the summary; stopped in the middle and resumed, it ends with the same bits."""
    for part, each in (("train", 14), ("test", 3)):
        for k, colour in enumerate(("red", "green", "blue")):
            (tmp_path / "photos" / part / colour).mkdir(parents=True)
            for number in range(each):
                pixels = texture(40, 50, 100 * k + number) // 2
                pixels[..., k] += 100
                Image.fromarray(pixels).save(tmp_path / "photos" / part / colour / f"{number}.jpg")
    broken = tmp_path / "photos" / "train" / "red" / "5.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    summary = run(photo_config(tmp_path / "photos", tmp_path / "whole", name))
    assert summary["finished"]
    bad_list = tmp_path / "whole" / "bad_images.txt"
    assert [Path(line.split("\t")[0]).name for line in bad_list.read_text().splitlines()] == ["5.jpg"]
    log = (tmp_path / "whole" / "train.log").read_text()
    assert f"feed {name} (as asked" in log
    for looks in (9, 19):
        with pytest.raises(Stopped):
            run(photo_config(tmp_path / "photos", tmp_path / "parts", name), StopAfter(looks))
    run(photo_config(tmp_path / "photos", tmp_path / "parts", name))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["finished"]
