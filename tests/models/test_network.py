"""Networks as the trainer uses them: shapes, seeds, heads, parameter groups, round trips."""

import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.errors import InputError
from fastcpc.models.build import build_network
from fastcpc.models.prototype_head import PrototypeHead

DIGITS = ModelConfig(name="digits_cnn", width=16)
SMALL = CpcConfig(embedding_dim=24)


def build(model=DIGITS, cpc=SMALL, num_classes=10, in_channels=1, image_size=8, seed=1):
    return build_network(model, cpc, num_classes=num_classes, in_channels=in_channels, image_size=image_size, seed=seed)


def same_weights(one, two):
    return [torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items()]


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize(("in_channels", "image_size"), [(1, 8), (3, 16)])
def test_shapes(num_classes, in_channels, image_size):
    network = build(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    images = torch.randn(5, in_channels, image_size, image_size)
    feat_BD = network.features(images)
    assert all(module.training for module in network.modules())
    assert feat_BD.shape == (5, network.feature_dim) == (5, 128)
    assert network(images).shape == network.classify(feat_BD).shape == (5, num_classes)
    assert network.embed(feat_BD).shape == (5, 24)
    assert network.prototype_matrix().shape == network.prototypes.shape == (num_classes, 24)
    assert isinstance(network.projector, nn.Linear)
    assert isinstance(network.classifier, nn.Linear)


def test_forward_classifies_the_features():
    network = build().eval()
    images = torch.randn(3, 1, 8, 8)
    weight, bias = network.classifier.weight.double(), network.classifier.bias.double()
    expected = network.features(images).double() @ weight.T + bias
    assert_close(network(images).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "in_channels", "image_size"),
    [
        (DIGITS, 1, 8),
        (ModelConfig(name="preact_resnet18", width=16), 3, 32),
        (ModelConfig(name="resnet50"), 3, 64),
        (ModelConfig(name="timm/test_resnet"), 3, 32),
        (ModelConfig(name="timm/test_vit"), 3, 32),
    ],
)
def test_weights_depend_on_the_seed_only(model, in_channels, image_size):
    torch.manual_seed(3)
    one = build(model, in_channels=in_channels, image_size=image_size, seed=7)
    torch.manual_seed(4)
    two = build(model, in_channels=in_channels, image_size=image_size, seed=7)
    assert all(same_weights(one, two))
    three = build(model, in_channels=in_channels, image_size=image_size, seed=8)
    for name, parameter in one.named_parameters():
        constant = (parameter == parameter.flatten()[0]).all()
        assert constant or not torch.equal(parameter, three.get_parameter(name)), name
    assert not torch.equal(one.prototypes, three.prototypes)


def test_the_global_random_state_does_not_change():
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    expected = (torch.rand(1), np.random.rand(), random.random())
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    build(ModelConfig(name="timm/test_resnet"), in_channels=3, image_size=32)
    build()
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_parameter_groups_are_disjoint_and_complete():
    network = build(cpc=CpcConfig(embedding_dim=24, normalise=True, projector="mlp"))
    groups = [*network.backbone_parameters(), *network.prototype_parameters()]
    assert len({id(parameter) for parameter in groups}) == len(groups) == len(list(network.parameters()))
    assert len(network.prototype_parameters()) == 4 + 1 + 2
    assert len(build().prototype_parameters()) == 2 + 1


def test_prototype_loss_has_gradients_in_its_own_group_only():
    network = build(cpc=CpcConfig(embedding_dim=24, normalise=True, projector="mlp"))
    feat_BD = network.features(torch.randn(6, 1, 8, 8)).detach()
    (network.embed(feat_BD) @ network.prototype_matrix().T).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.prototype_parameters())
    assert all(parameter.grad is None for parameter in network.backbone_parameters())


def test_plain_scores_are_dot_products():
    head = build().head
    feat_BD = torch.randn(6, 128)
    embedded = feat_BD.double() @ head.projector.weight.double().T + head.projector.bias.double()
    assert_close(
        (head.embed(feat_BD) @ head.matrix().T).double(), embedded @ head.prototypes.double().T, rtol=1e-4, atol=1e-5
    )


def test_normalised_scores_are_scale_times_cosine_plus_bias():
    head = build(cpc=CpcConfig(embedding_dim=24, normalise=True)).head
    head.log_scale.data.fill_(np.log(7.0))
    head.bias.data.fill_(-1.5)
    feat_BD = 5 * torch.randn(6, 128)
    embedded = head.projector(feat_BD).detach().double().numpy()
    prototypes = head.prototypes.detach().double().numpy()
    lengths = np.linalg.norm(embedded, axis=1)[:, None] * np.linalg.norm(prototypes, axis=1)[None]
    expected = 7.0 * (embedded @ prototypes.T) / lengths - 1.5
    assert head.embed(feat_BD).shape == (6, 25)
    assert head.matrix().shape == (10, 25)
    assert_close((head.embed(feat_BD) @ head.matrix().T).double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_normalised_head_starts_near_one_half_and_accepts_zero_features():
    head = PrototypeHead(32, 8, 4, "linear", True)
    assert head.bias.item() == 0
    assert head.log_scale.exp().item() == pytest.approx(10.0)
    head.projector.bias.data.zero_()
    assert torch.isfinite(head.embed(torch.zeros(2, 32))).all()


def test_mlp_projector_is_a_hidden_layer():
    head = build(cpc=CpcConfig(embedding_dim=24, projector="mlp")).head
    first, last = head.projector[0], head.projector[2]
    feat_BD = torch.randn(4, 128).double()
    hidden = (feat_BD @ first.weight.double().T + first.bias.double()).clamp(min=0)
    expected = hidden @ last.weight.double().T + last.bias.double()
    assert_close(head.embed(feat_BD.float()).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embedding_dim", [2, 128, 512])
def test_prototypes_start_with_length_about_one(embedding_dim):
    torch.manual_seed(0)
    lengths = PrototypeHead(1024, embedding_dim, 1000, "linear", False).prototypes.square().sum(dim=1)
    assert lengths.mean().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("cpc", [SMALL, CpcConfig(embedding_dim=24, normalise=True, projector="mlp")])
def test_round_trip_through_safetensors(tmp_path, cpc):
    network = build(cpc=cpc)
    network(torch.randn(9, 1, 8, 8))  # so that the running statistics are not those of a new network
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    other = build(cpc=cpc, seed=2)
    assert not all(same_weights(network, other))
    other.load_state_dict(load_file(tmp_path / "network.safetensors"))
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(network.eval()(images), other.eval()(images))
    assert torch.equal(network.prototype_matrix(), other.prototype_matrix())


@pytest.mark.parametrize("embedding_dim", [128, 129, 1000])
def test_embedding_must_be_smaller_than_the_features(embedding_dim):
    with pytest.raises(InputError, match=rf"^cpc\.embedding_dim={embedding_dim}: must be below the 128 features"):
        build(cpc=CpcConfig(embedding_dim=embedding_dim))
    build(cpc=CpcConfig(embedding_dim=127))


def test_one_class_is_an_error():
    with pytest.raises(InputError, match="1 class"):
        build(num_classes=1)


def test_network_compiles_as_one_graph():
    torch.compiler.reset()
    network = build()
    images = torch.randn(6, 1, 8, 8)
    expected = build()(images)
    assert_close(torch.compile(network, backend="eager", fullgraph=True)(images), expected)
