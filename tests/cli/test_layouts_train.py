"""Image files in the layout of each known data set go through every stage, and every test set is evaluated."""

from collections.abc import Sequence
from pathlib import Path

import image_sets
import pytest
import torch

from fastcpc.cli.train import main
from fastcpc.config.load import load_config
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.registry import load_dataset
from fastcpc.data.sampler import sequential_batches

SMALL = (
    *("model.width=16", "cpc.embedding_dim=16", "data.resize=36", "data.crop=32", "train.batch_size=4"),
    *("data.feed=torch", "data.workers=1", "device=cpu", "augment.strong=randaugment"),
)


def dry_run(*settings: str) -> int:
    return main(["--dry-run", *SMALL, *settings])


@pytest.mark.parametrize(("text", "images"), [("annotations", True), ("", False)])
def test_clothing1m_trains_a_step(tmp_path: Path, text: str, images: bool) -> None:
    image_sets.clothing1m(tmp_path, text, images)
    assert dry_run("data.name=clothing1m", f"data.root={tmp_path}") == 0


def test_webvision_trains_a_step(tmp_path: Path) -> None:
    image_sets.webvision(tmp_path)
    assert dry_run("data.name=webvision", f"data.root={tmp_path}", "data.num_classes=2", "data.flickr=true") == 0


def test_a_list_trains_a_step(tmp_path: Path) -> None:
    image_sets.imagefolder(tmp_path, {"x": 6})
    rows = [f'"x/{i:03d}.jpg",{"cat" if i % 2 else "dog"},{"test" if i > 3 else "train"}' for i in range(6)]
    listed = image_sets.lines(tmp_path / "list.csv", ["path,label,split", *rows])
    assert dry_run("data.name=imagefolder", f"data.root={tmp_path}", f"data.list={listed}") == 0


def served(settings: Sequence[str], name: str) -> tuple[torch.Tensor, int]:
    """All images of a test set as evaluation sees them, and the number of its samples."""
    config = load_config([], [*SMALL, *settings])
    dataset = load_dataset(config.data)
    loader = make_loader(dataset.tests[name], dataset, config.data, config.augment, torch.device("cpu"))
    batches = list(loader.stream(sequential_batches(loader.num_samples, 64), ("test",), 0))
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(loader.num_samples))
    return torch.cat([batch.views[0] for batch in batches]), loader.num_samples


@pytest.mark.parametrize("layout", list(image_sets.ILSVRC12))
def test_each_ilsvrc12_layout_is_evaluated(tmp_path: Path, layout: str) -> None:
    image_sets.webvision(tmp_path / "w")
    image_sets.ILSVRC12[layout](tmp_path / "i", 2)
    settings = ["data.name=webvision", f"data.root={tmp_path / 'w'}", "data.num_classes=2"]
    images, num = served([*settings, f"data.ilsvrc12={tmp_path / 'i'}"], "ilsvrc12")
    assert images.shape == (100, 3, 32, 32) and num == 100 and bool(images.isfinite().all())
