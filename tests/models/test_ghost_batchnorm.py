"""Several batches in one pass: outputs and running statistics equal those of separate passes."""

import copy

import pytest
import torch

from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.models.build import build_network
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm, forward_ghost
from fastcpc.models.sync_batchnorm import synchronise_batchnorm

NETWORKS = {
    "digits_cnn": (ModelConfig(name="digits_cnn", width=16), 1, 8),
    "preact_resnet18": (ModelConfig(width=16), 3, 16),
    "airbench": (ModelConfig(name="airbench", width=16), 3, 16),
}


def trained(network: torch.nn.Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def test_synchronised_layers_keep_what_is_frozen() -> None:
    model, channels, size = NETWORKS["airbench"]
    network = build_network(
        model, CpcConfig(embedding_dim=8), num_classes=5, in_channels=channels, image_size=size, seed=1
    )
    before = trained(network)
    synchronise_batchnorm(network, torch.device("cpu"))
    assert trained(network) == before


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_one_pass_of_four_batches_equals_four_passes(name: str) -> None:
    model, channels, size = NETWORKS[name]
    apart = build_network(
        model, CpcConfig(embedding_dim=8), num_classes=5, in_channels=channels, image_size=size, seed=1
    )
    together = copy.deepcopy(apart)
    assert apply_ghost_batchnorm(together)
    assert together.state_dict().keys() == apart.state_dict().keys()
    assert trained(together) == trained(apart)
    batches = [torch.randn(6, channels, size, size) * (1 + i) + i for i in range(4)]
    want = [apart(images) for images in batches]
    got = forward_ghost(together, batches)
    for one, two in zip(want, got, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.state_dict(), apart.state_dict(), rtol=1e-4, atol=1e-5)
    # afterwards it is the plain network again, in train and in eval mode
    torch.testing.assert_close(together(batches[0]), apart(batches[0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.eval()(batches[0]), apart.eval()(batches[0]), rtol=1e-4, atol=1e-4)


def test_layers_that_do_more_than_batchnorm_are_not_replaced() -> None:
    model = ModelConfig(name="timm/efficientnet_lite0", width=16)
    network = build_network(model, CpcConfig(embedding_dim=8), num_classes=5, in_channels=3, image_size=32, seed=1)
    before = [type(layer) for layer in network.modules()]
    assert not apply_ghost_batchnorm(network)
    assert [type(layer) for layer in network.modules()] == before
