"""The registry of networks: its names are those of the settings, and a network from outside trains."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_run import metrics, run, small_config
from torch import nn

from fastcpc.config import names
from fastcpc.config.load import load_config
from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.errors import InputError
from fastcpc.models.build import build_network, own_backbone
from fastcpc.models.registry import register_backbone, registered_backbones, unregister_backbone


def test_names_equal_those_of_the_settings() -> None:
    assert len(set(names.BACKBONES)) == len(names.BACKBONES)
    backbones = registered_backbones()
    assert set(names.BACKBONES) == set(backbones)
    assert set(names.WEIGHTS_BY_NAME) == {name for name, entry in backbones.items() if entry.load_named is not None}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A network of this file, known as toy for one test."""
    monkeypatch.setattr(names, "BACKBONES", [*names.BACKBONES, "toy"])

    @register_backbone("toy")
    def build(in_channels: int, image_size: int, width: int) -> nn.Module:
        pixels = in_channels * image_size**2
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU())

    yield "toy"
    unregister_backbone("toy")


def test_registered_network_trains(toy: str, tmp_path: Path) -> None:
    assert load_config([], [f"model.name={toy}"]).model.name == toy
    config = small_config(tmp_path / "run", model={"name": toy}, train={"epochs": 2}, cleaner={"warmup": 0.0})
    assert run(config)["finished"]
    _, epoch = metrics(tmp_path / "run")
    assert all(0 < count < 240 for count in epoch["labelled"])
    assert epoch["test_top1"] > 20  # by chance: 10


def test_registered_network_loads_weights_from_a_file(toy: str, tmp_path: Path) -> None:
    def build(weights: str, seed: int = 1) -> nn.Module:
        model = ModelConfig(name=toy, width=16, weights=weights)
        return build_network(
            model, CpcConfig(embedding_dim=4), num_classes=3, in_channels=1, image_size=8, seed=seed
        ).backbone

    source = build("")
    torch.save(source.state_dict(), tmp_path / "toy.pt")
    target = build(str(tmp_path / "toy.pt"), seed=2)
    assert torch.equal(target[1].weight, source[1].weight)  # type: ignore[index]
    assert not torch.equal(build("", seed=2)[1].weight, source[1].weight)  # type: ignore[index]
    with pytest.raises(InputError, match=r"model\.weights=NAMED: toy has no weights by name, only by path"):
        build("NAMED")


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"toy: add the name to BACKBONES of fastcpc\.config\.names"):
        register_backbone("toy")
    with pytest.raises(ValueError, match="toy is not a network of fastcpc"):
        own_backbone("toy", 1, 8, 16)


def test_networks_of_fastcpc_need_neither_timm_nor_torchvision_nor_scikit_learn() -> None:
    code = (
        "import sys\nimport fastcpc.cli.actions.train, fastcpc.cli.actions.predict, fastcpc.cli.actions.export\n"
        "from fastcpc.models.build import own_backbone\n"
        "for name in ('preact_resnet18', 'digits_cnn', 'small_cnn'):\n    own_backbone(name, 3, 32, 16)\n"
        "print([name for name in ('timm', 'torchvision', 'sklearn', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "['torch']\n"
