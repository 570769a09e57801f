"""BatchNorm folded into convolutions: by value against the network in float64, and which networks can be folded."""

import copy
from collections.abc import Callable

import pytest
import torch
from pretend_gpu import pretended_gpu
from torch import Tensor, nn

from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.models.build import build_network
from fastcpc.models.folding import FoldedNetwork, fold_batchnorm
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm
from fastcpc.models.network import Network

NETWORKS = {  # layers that are folded: PreAct's first BatchNorm of a block follows a sum, others follow pooling
    "preact_resnet18": 9, "airbench": 3, "small_cnn": 0, "resnet50": 53, "timm/test_resnet": 15, "timm/test_vit": 0,
}  # fmt: skip


def images(number: int, pixels: int = 16) -> Tensor:
    return torch.randn(number, 3, pixels, pixels, generator=torch.Generator().manual_seed(number))


def trained(name: str, seed: int = 1) -> Network:
    """A network with the running statistics and the weights of some training."""
    network = build_network(
        ModelConfig(name=name, width=16), CpcConfig(embedding_dim=8), num_classes=5, in_channels=3, image_size=32,
        seed=seed,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.weight.data = torch.rand(layer.weight.shape, generator=draw) * 2 - 0.5
            layer.bias.data = torch.randn(layer.bias.shape, generator=draw)
    with torch.no_grad():
        for _ in range(4):
            network.train()(2 * images(24) + 0.3)
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_which_layers_are_folded(name: str) -> None:
    network = build_network(
        ModelConfig(name=name, width=16), CpcConfig(embedding_dim=8), num_classes=5, in_channels=3, image_size=32,
        seed=1,
    ).eval()  # fmt: skip
    folded = fold_batchnorm(network)
    assert (len(folded.pairs) if folded is not None else 0) == NETWORKS[name]
    if folded is not None and name != "resnet50":
        inputs = images(2, 32)
        torch.testing.assert_close(folded(inputs), network(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ghost", [False, True])
def test_folded_network_equals_the_trained_one_in_float64(ghost: bool) -> None:
    network, other, inputs = trained("preact_resnet18"), trained("preact_resnet18", 2), images(16)
    if ghost:
        assert apply_ghost_batchnorm(network) and apply_ghost_batchnorm(other)
    weights = copy.deepcopy(network.state_dict())
    folded = fold_batchnorm(network)
    assert isinstance(folded, FoldedNetwork) and not folded.train().training
    with torch.no_grad():
        for one in (network, other):  # loaded again, at the same addresses
            places = [value.data_ptr() for value in folded.state_dict().values()]
            folded.load(one)
            assert places == [value.data_ptr() for value in folded.state_dict().values()]
            truth = copy.deepcopy(one).double().eval()(inputs.double())
            plain, ours = (
                float((made(inputs).double() - truth).norm() / truth.norm()) for made in (one.eval(), folded)
            )
            assert ours < 2e-6 and plain < 2e-6
        exact = fold_batchnorm(copy.deepcopy(network).double())
        assert exact is not None
        torch.testing.assert_close(exact(inputs.double()), copy.deepcopy(network).double().eval()(inputs.double()))
    assert not any(value.requires_grad for value in folded.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_folding_in_bfloat16_costs_no_accuracy() -> None:
    """Filters are rounded after scaling instead of before."""
    network, inputs = trained("preact_resnet18"), images(64)
    folded = fold_batchnorm(network, torch.bfloat16)
    assert folded is not None and folded.graph.get_parameter("backbone.stem.bias").dtype == torch.bfloat16
    with torch.no_grad():
        truth = copy.deepcopy(network).double()(inputs.double())
        with torch.autocast("cpu", torch.bfloat16):
            errors = [float((made(inputs).double() - truth).norm()) for made in (network, folded)]
    assert errors[1] < 1.5 * errors[0]


class TwoUses(nn.Module):
    """A convolution whose output is also used without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv(maps)
        return self.norm(maps) + maps


class Twice(TwoUses):
    """A BatchNorm that is called twice."""

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(maps)))


class ByValue(TwoUses):
    """A network whose code looks at values."""

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(self.conv(maps)) if maps.mean() > 0 else maps


@pytest.mark.parametrize(
    "network",
    [TwoUses, Twice, ByValue, lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
     lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4)), lambda: nn.Linear(3, 4)],
)  # fmt: skip
def test_what_cannot_be_folded_is_left_as_it_is(network: Callable[[], nn.Module]) -> None:
    assert fold_batchnorm(network().eval()) is None


def test_convolution_with_a_bias_and_norm_without_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False))
    for _ in range(3):
        network.train()(images(8) * 2 + 1)
    folded = fold_batchnorm(network.eval())
    assert folded is not None
    torch.testing.assert_close(folded(images(2)), network(images(2)), rtol=1e-4, atol=1e-5)


def test_on_a_pretended_gpu_the_folded_network_is_the_same() -> None:
    network, inputs = trained("preact_resnet18"), images(4)
    with torch.no_grad():
        expected = network(inputs)
        with pretended_gpu() as gpu:
            folded = fold_batchnorm(network.to("cuda").to(memory_format=torch.channels_last))
            assert folded is not None
            with gpu.hot():
                folded.load(network)
                made = folded(inputs.to("cuda", non_blocking=True))
            torch.testing.assert_close(made.cpu(), expected, rtol=1e-4, atol=1e-5)
