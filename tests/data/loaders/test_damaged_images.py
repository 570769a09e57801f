"""Damaged files in both feeds, and which feed is chosen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import CPU, FOUR, batches_of, damaged_files, dataset_of, levels, loader_of, plain_files, same

from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.data.dataset import ArraySplit
from fastcpc.data.loaders import factory
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.loaders.factory import choose_loader, make_loader
from fastcpc.errors import InputError, RunError

needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")
each_loader = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])


@each_loader
def test_bad_files_are_named_counted_and_replaced(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = plain_files(tmp_path, 11), damaged_files(tmp_path)
    dataset, listed = dataset_of([*good, *bad]), tmp_path / "bad.txt"
    loader = loader_of(dataset, name, listed, max_bad=0.5)
    batches = batches_of(16)
    first = list(loader.stream(batches, FOUR, 1))
    assert [len(batch.index) for batch in first] == [5, 5, 5, 1]
    for batch, asked in zip(first, batches, strict=True):
        kept = asked < 11
        assert batch.index[kept].equal(asked[kept])
        assert (batch.index < 11).all()  # the label that goes with the image is that of the replacement image
        if kept.any():
            assert set(batch.index.tolist()) <= set(asked.tolist())  # it comes from the same list
    lines = [line.split("\t") for line in listed.read_text().splitlines()]
    assert sorted(Path(path).name for path, _ in lines) == sorted(path.name for path in bad)
    assert all(reason for _, reason in lines)
    assert all(path.name in caplog.text for path in bad)
    again = loader_of(dataset, name, listed, max_bad=0.5)  # as after a resume: damage is not known beforehand
    assert same(first[1:], list(again.stream(batches, FOUR, 1, 1)))
    assert len(listed.read_text().splitlines()) == 5


@each_loader
def test_scoring_brings_each_index_once_damaged_or_not(tmp_path: Path, name: str) -> None:
    loader = loader_of(dataset_of([*plain_files(tmp_path, 3), *damaged_files(tmp_path)]), name, max_bad=1.0)
    (batch,) = loader.stream([torch.arange(8)], ("test",), 1)
    assert batch.index.equal(torch.arange(8))
    assert (levels(batch.views[0][3:]) - torch.tensor([128.0, 102, 76]).view(3, 1, 1)).abs().max() < 0.51
    assert batch.views[0][:3].abs().amax(dim=(1, 2, 3)).min() > 0.5


@each_loader
def test_too_many_bad_files_end_the_run(tmp_path: Path, name: str) -> None:
    listed = tmp_path / "bad.txt"
    dataset = dataset_of([*plain_files(tmp_path, 15), *damaged_files(tmp_path)])
    loader = loader_of(dataset, name, listed, max_bad=0.1)
    with pytest.raises(RunError, match=r"3 of 20 images cannot be read, more than data.max_bad=0.1 .*bad\.txt"):
        list(loader.stream(batches_of(20), FOUR, 1))
    assert len(listed.read_text().splitlines()) == 3
    test_set = replace(dataset, train=dataset.train.take(np.arange(3)), tests={"test": dataset.train})
    data = DataConfig(feed=name, workers=1, max_bad=1.0)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="a test set must be whole"):
        list(make_loader(test_set.tests["test"], test_set, data, AugmentConfig(), CPU).stream(batches_of(20), FOUR, 1))


@each_loader
def test_no_readable_image_is_an_error(tmp_path: Path, name: str) -> None:
    loader = loader_of(dataset_of(damaged_files(tmp_path)), name, max_bad=1.0)
    with pytest.raises(RunError, match="no image of the data set can be read"):
        list(loader.stream(batches_of(5), FOUR, 1))


def test_auto_says_what_it_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = dataset_of(plain_files(tmp_path, 1))
    monkeypatch.setattr(factory, "dali_problem", lambda: "")
    assert choose_loader(images, DataConfig(), CPU)[0] == "dali"
    monkeypatch.setattr(factory, "dali_problem", lambda: "nvidia.dali is not installed")
    name, why = choose_loader(images, DataConfig(), CPU)
    assert name == "torch" and "pip install fastcpc[dali]" in why
    with pytest.raises(InputError, match=r"data.feed=dali: nvidia.dali is not installed; pip install fastcpc\[dali\]"):
        choose_loader(images, DataConfig(feed="dali"), CPU)
    with pytest.raises(InputError, match=r"data\.feed=memory"):
        choose_loader(images, DataConfig(feed="memory"), CPU)
    pixels = replace(
        images, train=ArraySplit(torch.zeros(1, 3, 8, 8).byte(), np.zeros(1, np.int64), np.arange(1), ("a",))
    )
    assert choose_loader(pixels, DataConfig(), CPU)[0] == "memory"
    with pytest.raises(InputError, match=r"data\.feed=torch: serves image files"):
        choose_loader(pixels, DataConfig(feed="torch"), CPU)
