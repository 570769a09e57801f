"""Networks of fastcpc: layout, sizes, outputs against float64 computed from the weights."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fastcpc.models.backbones.digits_cnn import DigitsCnn
from fastcpc.models.backbones.preact_resnet import PreActResNet18
from fastcpc.models.backbones.small_cnn import SmallCnn


def train_norm(maps, weight, bias):
    """BatchNorm with the batch's statistics, written out."""
    dims = [0, *range(2, maps.ndim)]
    mean = maps.mean(dim=dims, keepdim=True)
    variance = ((maps - mean) ** 2).mean(dim=dims, keepdim=True)
    shape = [1, -1] + [1] * (maps.ndim - 2)
    return (maps - mean) / (variance + 1e-5).sqrt() * weight.reshape(shape) + bias.reshape(shape)


def preact64(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """PreAct ResNet-18 as in the code of DivideMix, computed from the weights."""

    def norm_relu(maps, name):
        return train_norm(maps, weights[f"{name}.weight"], weights[f"{name}.bias"]).clamp(min=0)

    maps = norm_relu(F.conv2d(images, weights["stem.weight"], padding=1), "stem_norm")
    for block in range(8):
        name = f"blocks.{block}"
        stride = 2 if block in (2, 4, 6) else 1
        active = norm_relu(maps, f"{name}.norm1")
        hidden = norm_relu(F.conv2d(active, weights[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.norm2")
        change = F.conv2d(hidden, weights[f"{name}.conv2.weight"], padding=1)
        key = f"{name}.shortcut.weight"
        maps = change + (F.conv2d(active, weights[key], stride=stride) if key in weights else active)
    return maps.mean(dim=(2, 3))


def randomise(network):
    """Random BatchNorm weights and biases, so that an error in them shows."""
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data = torch.rand(parameter.shape, generator=generator) + 0.5
    return network


@pytest.mark.parametrize(("in_channels", "size"), [(3, 32), (1, 32), (3, 16)])
def test_preact_resnet_against_float64(in_channels, size):
    network = randomise(PreActResNet18(in_channels, 16)).train()
    images = torch.randn(3, in_channels, size, size, generator=torch.Generator().manual_seed(1))
    weights = {key: value.detach().double() for key, value in network.named_parameters()}
    expected = preact64(weights, images.double())
    assert (expected < 0).any()
    assert_close(network(images).double(), expected, rtol=1e-4, atol=1e-4)


def test_preact_resnet_has_as_many_parameters_as_in_dividemix():
    # 11,171,274 with their linear layer of 512 * 10 + 10.
    network = PreActResNet18(3, 64)
    assert sum(parameter.numel() for parameter in network.parameters()) + 512 * 10 + 10 == 11_171_274


@pytest.mark.parametrize("width", [16, 32])
def test_preact_resnet_feature_size(width):
    network = PreActResNet18(3, width)
    assert network.feature_dim == 8 * width
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 8 * width)


def digits64(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The digits network from the weights alone; pooling by its definition."""
    maps = F.conv2d(images, weights["conv1.weight"], padding=1)
    batch, channels, height, width = maps.shape
    maps = maps.reshape(batch, channels, height // 2, 2, width // 2, 2).amax(dim=(3, 5))
    maps = train_norm(maps, weights["norm1.weight"], weights["norm1.bias"]).clamp(min=0)
    maps = F.conv2d(maps, weights["conv2.weight"], padding=1)
    maps = train_norm(maps, weights["norm2.weight"], weights["norm2.bias"]).clamp(min=0)
    return (maps.reshape(batch, -1) @ weights["linear.weight"].T + weights["linear.bias"]).clamp(min=0)


def small64(weights, images):
    maps = images
    for number in "123":
        maps = F.conv2d(maps, weights[f"conv{number}.weight"], padding=1)
        batch, channels, side, _ = maps.shape
        half = side // 2
        maps = maps[..., : 2 * half, : 2 * half].reshape(batch, channels, half, 2, half, 2).amax(dim=(3, 5))
        maps = train_norm(maps, weights[f"norm{number}.weight"], weights[f"norm{number}.bias"]).clamp(min=0)
    return (maps.reshape(len(maps), -1) @ weights["linear.weight"].T + weights["linear.bias"]).clamp(min=0)


@pytest.mark.parametrize(
    ("made", "plain", "in_channels", "size", "width"),
    [
        (DigitsCnn, digits64, 1, 8, 32), (DigitsCnn, digits64, 3, 8, 16), (DigitsCnn, digits64, 1, 16, 16),
        (SmallCnn, small64, 3, 24, 32), (SmallCnn, small64, 1, 8, 16), (SmallCnn, small64, 3, 29, 16),
    ],
)  # fmt: skip
def test_small_networks_against_float64(made, plain, in_channels, size, width):
    network = randomise(made(in_channels, size, width)).train()
    images = torch.randn(7, in_channels, size, size, generator=torch.Generator().manual_seed(2))
    weights = {key: value.detach().double() for key, value in network.named_parameters()}
    features = network(images)
    assert features.shape == (7, network.feature_dim)
    assert network.feature_dim == {DigitsCnn: 8, SmallCnn: 4}[made] * width
    assert_close(features.double(), plain(weights, images.double()), rtol=1e-4, atol=1e-4)


def test_digits_cnn_is_small():
    network = DigitsCnn(1, 8, 32)
    assert network.feature_dim == 256
    assert 50_000 <= sum(parameter.numel() for parameter in network.parameters()) <= 150_000


@pytest.mark.parametrize("network", [PreActResNet18(3, 16), DigitsCnn(3, 32, 16), SmallCnn(3, 32, 16)])
def test_eval_mode_computes_each_image_independently(network):
    images = torch.randn(4, 3, 32, 32)
    network.train()(images)
    network.eval()
    together = network(images)
    assert_close(together[1:2], network(images[1:2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", [PreActResNet18(3, 16), DigitsCnn(3, 32, 16), SmallCnn(3, 32, 16)])
def test_channels_last_gives_the_same_outputs(network):
    images = torch.randn(16, 3, 32, 32)
    expected = network.eval()(images)
    network.to(memory_format=torch.channels_last)
    assert_close(network(images.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)
    network.to(memory_format=torch.contiguous_format)
