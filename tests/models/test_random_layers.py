"""Steps seed the layers of a network that may draw, and of no other; when unsure, they do."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_stages import CONFIG, BareSteps, small_stages
from torch import Tensor, nn

from fastcpc.config.names import BACKBONES, EMBEDDING_BACKBONES
from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.engine.learner import Learner
from fastcpc.engine.train_epoch import semi_supervised, warm_up
from fastcpc.models.build import build_network
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm
from fastcpc.models.network import Network
from fastcpc.models.random_layers import may_draw

PIXELS = {"digits_cnn": 8, "linear": 1, "mlp": 1}


def network_of(name: str, drop_path: float = 0.0) -> Network:
    pixels = PIXELS.get(name, 32)
    model = ModelConfig(name=name, width=16, drop_path=drop_path)
    channels = 40 if name in EMBEDDING_BACKBONES else 3
    cpc = CpcConfig(embedding_dim=8, projector="mlp", normalise=True)
    return build_network(model, cpc, num_classes=4, in_channels=channels, image_size=pixels, seed=1)


@pytest.mark.parametrize("name", BACKBONES)
def test_networks_of_fastcpc_draw_nothing(name: str) -> None:
    network, before = network_of(name), torch.get_rng_state()
    assert not may_draw(network)
    pixels, channels = PIXELS.get(name, 32), 40 if name in EMBEDDING_BACKBONES else 3
    images = torch.randn(4, channels, pixels, pixels, generator=torch.Generator().manual_seed(2))
    network.train()(images).sum().backward()
    network.embed(network.features(images)) @ network.prototype_matrix().T
    apply_ghost_batchnorm(network)
    network(images)
    assert torch.equal(torch.get_rng_state(), before) and not may_draw(network)


class Dropping(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return F.dropout(maps, 0.3, self.training)


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), nn.RReLU(), Dropping(), nn.MultiheadAttention(8, 2, dropout=0.1)])
def test_a_layer_that_may_draw_is_found(layer: nn.Module) -> None:
    assert may_draw(nn.Sequential(nn.Linear(8, 8), nn.Sequential(layer)))


def test_unsure_counts_as_drawing() -> None:
    assert may_draw(network_of("timm/test_vit", drop_path=0.1)) and may_draw(network_of("timm/test_resnet"))
    hooked, replaced = nn.ReLU(), nn.ReLU()
    assert not may_draw(nn.Sequential(hooked, replaced))
    handle = hooked.register_forward_hook(lambda layer, given, made: F.dropout(made))
    assert may_draw(hooked)
    handle.remove()
    replaced.forward = F.dropout  # type: ignore[method-assign]
    assert may_draw(replaced)


def trained(global_seed: int, *, drops: bool) -> Learner:
    training, (own, other) = small_stages(replace(CONFIG, semisup=replace(CONFIG.semisup, batches_per_epoch=2)))
    if drops:
        own.network.backbone = nn.Sequential(own.network.backbone, Dropping())
    torch.manual_seed(global_seed)
    warm_up(own, training, BareSteps(), epoch=0, start=0)
    semi_supervised(own, other, training, BareSteps(), epoch=1, start=0)
    return own


def test_steps_with_dropout_are_a_function_of_the_run_seed() -> None:
    one, two = trained(1, drops=True), trained(2, drops=True)
    for value, same in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(value, same)
    assert not torch.equal(one.network.classifier.weight, trained(1, drops=False).network.classifier.weight)


def test_steps_without_random_layers_leave_the_generator_alone() -> None:
    trained(7, drops=False)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    assert torch.equal(torch.get_rng_state(), state)
