"""Whole runs on image files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_photos import texture
from PIL import Image
from small_run import StopAfter, assert_same_run, run, small_config

from fastcpc.config.schema import AugmentConfig, Config, DataConfig
from fastcpc.data.dali_lane import dali_fault
from fastcpc.engine.interrupt import Stopped

needs_dali = pytest.mark.skipif(bool(dali_fault()), reason="needs nvidia.dali")
each_feed = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])


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
    whole = StopAfter()
    summary = run(photo_config(tmp_path / "photos", tmp_path / "whole", name), whole)
    assert summary["finished"]
    bad_list = tmp_path / "whole" / "bad_images.txt"
    assert [Path(line.split("\t")[0]).name for line in bad_list.read_text().splitlines()] == ["5.jpg"]
    log = (tmp_path / "whole" / "train.log").read_text()
    assert f"feed {name} (as asked" in log
    for looks in (whole.looks // 4, whole.looks // 3):
        with pytest.raises(Stopped):
            run(photo_config(tmp_path / "photos", tmp_path / "parts", name), StopAfter(looks))
    run(photo_config(tmp_path / "photos", tmp_path / "parts", name))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["finished"]
