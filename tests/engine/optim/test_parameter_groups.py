"""Parameter groups against timm's, frozen layers, drop path, and the updates of AdamW and clipping by value."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from small_run import small_config
from timm.layers import DropPath
from timm.optim import param_groups_layer_decay

from fastcpc.config.schema import Config, CpcConfig, ModelConfig, OptimConfig, TrainConfig
from fastcpc.engine.learner import Learner
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.optim.optimizers import build_optimizer, clip_gradients, set_learning_rate
from fastcpc.engine.optim.parameter_groups import parameter_groups
from fastcpc.errors import InputError
from fastcpc.models.build import build_network
from fastcpc.models.layer_groups import freeze_layers, layer_groups
from fastcpc.models.network import Network

CPU = Numerics(torch.device("cpu"), torch.float32)
LR, DECAY = 0.01, 0.05


def network_of(name: str, size: int = 32, **model: Any) -> Network:
    return build_network(
        ModelConfig(name=name, **model),
        CpcConfig(embedding_dim=8),
        num_classes=5,
        in_channels=3,
        image_size=size,
        seed=1,
    )


def config_of(name: str, **optim: Any) -> Config:
    return Config(
        model=ModelConfig(name=name), optim=OptimConfig(**optim), train=TrainConfig(lr=LR, weight_decay=DECAY)
    )


def by_name(network: Network, groups: Any) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by the name of each parameter, the classifier's under timm's name."""
    names = {id(p): name for name, p in network.backbone.named_parameters()}
    names |= {id(p): f"head.{name}" for name, p in network.classifier.named_parameters()}
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_factors_and_exceptions_are_those_of_timm(name: str) -> None:
    network = network_of(f"timm/{name}", 160)
    whole = timm.create_model(name, num_classes=5)
    found = by_name(network, parameter_groups(network, config_of(f"timm/{name}", layer_decay=0.7, decay_norms=False)))
    exempt = getattr(whole, "no_weight_decay", tuple)()
    reference: Any = param_groups_layer_decay(whole, DECAY, exempt, layer_decay=0.7)
    names = {id(p): key for key, p in whole.named_parameters()}
    head = whole.pretrained_cfg["classifier"]  # type: ignore[index]
    expected = {
        names[id(p)].replace(head, "head", 1) if names[id(p)].startswith(head) else names[id(p)]: (
            pytest.approx(LR * group["lr_scale"]),
            group["weight_decay"],
        )
        for group in reference
        for p in group["params"]
    }
    assert found == expected
    assert len({rate for rate, _ in found.values()}) > 3


def test_factors_by_hand() -> None:
    """test_vit: stem, six blocks (the last with the norm), classifier; the classifier has train.lr."""
    network = network_of("timm/test_vit")
    config = config_of("timm/test_vit", layer_decay=0.5, backbone_lr_scale=0.1)
    depth = 7
    found = by_name(network, parameter_groups(network, config))
    assert {decay for _, decay in found.values()} == {DECAY}
    rates = {name: rate for name, (rate, _) in found.items()}
    assert rates["head.weight"] == LR and rates["norm.weight"] == pytest.approx(LR * 0.1 * 0.5)
    assert rates["pos_embed"] == rates["patch_embed.proj.weight"] == pytest.approx(LR * 0.1 * 0.5**depth)
    assert rates["blocks.0.norm1.bias"] == pytest.approx(LR * 0.1 * 0.5 ** (depth - 1))
    optimizer = build_optimizer(parameter_groups(network, config), config.train, config.optim, CPU.device)
    set_learning_rate(optimizer, 2 * LR)
    assert by_name(network, optimizer.param_groups) == {
        name: (pytest.approx(2 * rate), DECAY) for name, rate in rates.items()
    }


def test_default_settings_give_the_parameters_themselves() -> None:
    network = network_of("preact_resnet18")
    found = parameter_groups(network, Config())
    assert all(a is b for a, b in zip(found, network.backbone_parameters(), strict=True))


def test_networks_without_groups_are_an_error() -> None:
    with pytest.raises(InputError, match=r"^model\.name=preact_resnet18: has no groups of layers, which"):
        layer_groups(network_of("preact_resnet18").backbone, "preact_resnet18")


def test_a_frozen_backbone_keeps_weights_and_statistics() -> None:
    config = small_config(Path("unused"), model={"freeze": "backbone"})
    own = Learner(1, config, CPU, num_classes=10, in_channels=1, image_size=8, num_samples=20)
    before = own.snapshot()["network"]
    own.network.train()
    own.update((own.network(torch.rand(8, 1, 8, 8)).square().mean(),), torch.arange(8))
    after = own.snapshot()["network"]
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier"}


def test_the_first_groups_are_frozen() -> None:
    network = network_of("timm/test_efficientnet", freeze="2")
    freeze_layers(network, ModelConfig(name="timm/test_efficientnet", freeze="2"))
    groups = layer_groups(network.backbone, "timm/test_efficientnet")
    trained = {name: p.requires_grad for name, p in network.backbone.named_parameters()}
    del groups["classifier"]
    assert trained == {name: group >= 2 for name, group in groups.items()} and len(set(trained.values())) == 2
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network.train()(torch.rand(4, 3, 32, 32)).square().mean().backward()
    moved = {name for name, value in network.backbone.state_dict().items() if not torch.equal(value, before[name])}
    of_norm = {name: f"{name.rpartition('.')[0]}.weight" for name in moved}
    assert moved and all(groups[weight] >= 2 for weight in of_norm.values())
    with pytest.raises(InputError, match=r"^model\.freeze=99: timm/test_efficientnet has \d+ groups of layers; give"):
        freeze_layers(network, ModelConfig(name="timm/test_efficientnet", freeze="99"))


def test_drop_path() -> None:
    """Grows from 0 to its largest value, as timm has it."""
    network = network_of("timm/test_vit", drop_path=0.2)
    shares = [layer.drop_prob for layer in network.modules() if isinstance(layer, DropPath)]
    assert shares and max(shares) == pytest.approx(0.2)
    assert not any(isinstance(layer, DropPath) for layer in network_of("timm/test_vit").modules())
    with pytest.raises(InputError, match=r"^model\.drop_path=0\.2: timm/vgg11 has no residual blocks"):
        network_of("timm/vgg11", drop_path=0.2)


def test_adamw_by_value() -> None:
    """Two updates against the formula in float64."""
    draw = torch.Generator().manual_seed(3)
    parameter = torch.nn.Parameter(torch.randn(7, generator=draw))
    train = TrainConfig(lr=0.01, weight_decay=0.1)
    optimizer = build_optimizer([parameter], train, OptimConfig(name="adamw"), CPU.device)
    value, first, second = parameter.detach().double(), torch.zeros(7).double(), torch.zeros(7).double()
    for step in (1, 2):
        parameter.grad = torch.randn(7, generator=draw)
        grad = parameter.grad.double()
        first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
        value = value * (1 - 0.01 * 0.1)
        value = value - 0.01 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        optimizer.step()
    torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("limit", "factor"), [(2.5, 0.5), (10.0, 1.0)])
def test_clipping_by_value(limit: float, factor: float) -> None:
    """Gradients of norm 5 together, also over two groups."""
    one, two = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    one.grad, two.grad = torch.tensor([0.0, 3.0]), torch.tensor([4.0])
    clip_gradients(torch.optim.SGD([{"params": [one]}, {"params": [two]}], lr=1.0), limit)
    assert one.grad.tolist() == pytest.approx([0.0, 3 * factor]) and two.grad.tolist() == pytest.approx([4 * factor])


def test_clipping_is_part_of_an_update() -> None:
    config = small_config(Path("unused"), optim={"clip_norm": 1e-3}, train={"momentum": 0.0, "weight_decay": 0.0})
    own = Learner(1, config, CPU, num_classes=10, in_channels=1, image_size=8, num_samples=20)
    before = own.snapshot()["network"]
    own.update((own.network(torch.rand(8, 1, 8, 8)).square().mean(),), torch.arange(8))
    after = own.snapshot()["network"]
    moved = [(after[name] - before[name]).double().square().sum() for name, _ in own.network.named_parameters()]
    assert float(sum(moved)) ** 0.5 == pytest.approx(config.train.lr * 1e-3, rel=1e-3)
