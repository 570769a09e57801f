"""The network of airbench against its definition in float64, and its whitening layer by value."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from image_run import coloured_images, image_config
from safetensors.torch import load_file
from small_run import metrics, run
from torch.testing import assert_close

from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.engine.outputs.flops import count_image_flops
from fastcpc.errors import InputError
from fastcpc.models.backbones.airbench import Airbench
from fastcpc.models.build import build_network


def correlated_images(count: int, size: int = 12) -> torch.Tensor:
    """Images whose neighbouring pixels and channels are correlated, with a mean."""
    noise = torch.randn(count, 3, size + 2, size + 2, generator=torch.Generator().manual_seed(3))
    smooth = F.avg_pool2d(noise, 3, stride=1) * 2
    return smooth + smooth.mean(1, keepdim=True) + 0.5


def plain64(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Features from the weights, by definition, in train mode."""

    def gelu(values: torch.Tensor) -> torch.Tensor:
        return values * (1 + torch.erf(values / 2**0.5)) / 2

    def norm(maps: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((maps - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        return (maps - mean) / (variance + 1e-5).sqrt() + bias.view(1, -1, 1, 1)

    maps = gelu(F.conv2d(images, weights["whiten.weight"], weights["whiten.bias"]))
    for block in ("block1", "block2", "block3"):
        maps = F.conv2d(maps, weights[f"{block}.conv1.weight"], padding=1)
        half = maps.shape[-1] // 2
        maps = maps[..., : 2 * half, : 2 * half].unflatten(3, (half, 2)).unflatten(2, (half, 2)).amax(dim=(3, 5))
        maps = gelu(norm(maps, weights[f"{block}.norm1.bias"]))
        maps = gelu(norm(F.conv2d(maps, weights[f"{block}.conv2.weight"], padding=1), weights[f"{block}.norm2.bias"]))
    return maps.flatten(2).amax(-1)


@pytest.mark.parametrize(("channels", "size", "width"), [(3, 32, 16), (1, 28, 32), (3, 9, 16), (3, 64, 16)])
def test_against_float64(channels: int, size: int, width: int) -> None:
    network = Airbench(channels, size, width).train()
    draws = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        if parameter.ndim == 1 and parameter.requires_grad:  # biases
            parameter.data = torch.rand(parameter.shape, generator=draws) - 0.5
    images = torch.randn(5, channels, size, size, generator=draws)
    features = network(images)
    assert features.shape == (5, network.feature_dim) == (5, 4 * width)
    weights = {name: value.detach().double() for name, value in network.named_parameters()}
    assert_close(features.double(), plain64(weights, images.double()), rtol=1e-3, atol=1e-3)


def test_responses_of_the_first_layer_are_white() -> None:
    images = correlated_images(400)
    network = Airbench(3, 12, 16)
    network.fit_whitening(images)
    torch.nn.init.zeros_(network.whiten.bias)  # type: ignore[arg-type]
    responses_PD = network.whiten(images).detach().double().transpose(0, 1).flatten(1).T
    positive, negative = responses_PD[:, :12], responses_PD[:, 12:]
    assert negative.equal(-positive)
    second_DD = positive.T @ positive / len(positive)
    patches_PD = F.unfold(images.double(), 2).transpose(1, 2).flatten(0, 1)
    variances_D = torch.linalg.eigvalsh(patches_PD.T @ patches_PD / len(patches_PD)).flip(0)
    assert_close(second_DD, torch.diag(variances_D / (variances_D + 5e-4)), rtol=0, atol=1e-4)


def test_filters_do_not_depend_on_the_signs_of_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    images = correlated_images(50)
    first, second = Airbench(3, 12, 16), Airbench(3, 12, 16)
    first.fit_whitening(images)
    plain = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (plain(matrix)[0], -plain(matrix)[1]))
    second.fit_whitening(images)
    assert first.whiten.weight.equal(second.whiten.weight)


def test_what_is_trained() -> None:
    network = Airbench(3, 32, 64)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    norms = {f"block{block}.norm{norm}.weight" for block in (1, 2, 3) for norm in (1, 2)}
    assert frozen == {"whiten.weight", *norms}
    assert 1_900_000 < sum(parameter.numel() for parameter in network.parameters()) < 2_000_000


def test_first_filters_pass_a_channel_on() -> None:
    layer = Airbench(3, 32, 16).block2.conv1
    maps = torch.randn(2, 16, 5, 5)
    assert_close(layer(maps)[:, :16], maps)


def test_it_has_a_fifth_of_the_flops_of_preact_resnet18() -> None:
    def forward(name: str) -> int:
        network = build_network(
            ModelConfig(name=name), CpcConfig(), num_classes=10, in_channels=3, image_size=32, seed=1
        )
        counted = count_image_flops(network, 3, 32)
        assert counted is not None
        return counted.forward

    assert forward("airbench") / forward("preact_resnet18") == pytest.approx(0.213, abs=0.001)


def test_small_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.name=airbench: cannot process images of 1x8x8"):
        build_network(
            ModelConfig(name="airbench", width=16), CpcConfig(embedding_dim=8), num_classes=10, in_channels=1,
            image_size=8, seed=1,
        )  # fmt: skip


def test_a_run_fits_the_first_layer_and_keeps_it(tmp_path: Path) -> None:
    """The average of weights has the same filters, and no step changes them."""
    coloured_images(tmp_path / "images")
    config = image_config(tmp_path / "images", tmp_path / "run", "torch")
    config = replace(config, model=replace(config.model, name="airbench"), ema=replace(config.ema, decay=0.9))
    assert run(config)["finished"]
    assert metrics(tmp_path / "run")[-1]["test_top1"] > 40  # by chance: 33
    filters = [
        load_file(path)["backbone.whiten.weight"] for path in sorted((tmp_path / "run").rglob("net*.safetensors"))
    ]
    assert len(filters) >= 2 and all(weight.equal(filters[0]) for weight in filters)
    assert filters[0][:12].equal(-filters[0][12:])
    assert filters[0].flatten(1).norm(dim=1).max() > 2  # random weights are all below 1
