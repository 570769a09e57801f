"""Parameter groups of the networks: layer-wise learning rates, and parameters without weight decay.

The factors and the exceptions are those of timm's ``param_groups_layer_decay`` (Bao et al., BEiT, 2022).
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from torch import nn

from fastcpc.config.schema import Config
from fastcpc.engine.optim.optimizers import LR_SCALE, Groups
from fastcpc.models.layer_groups import CLASSIFIER, layer_groups
from fastcpc.models.network import Network


def parameter_groups(network: Network, config: Config) -> Groups:
    """What the optimiser of backbone and classifier takes; frozen parameters are left out.

    With the default settings these are the parameters themselves, so that checkpoints stay as they are. Else one group
    for each combination of learning rate and weight decay. The classifier always has train.lr.
    """
    optim = config.optim
    if optim.layer_decay == optim.backbone_lr_scale == 1.0 and optim.decay_norms:
        return network.backbone_parameters()
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter, scale in _scaled(network, config):
        spared = not optim.decay_norms and _is_spared(name, parameter, network.backbone)
        decay = 0.0 if spared else config.train.weight_decay
        group = {"params": [], LR_SCALE: scale, "lr": config.train.lr * scale, "weight_decay": decay}
        groups.setdefault((scale, decay), group)["params"].append(parameter)
    return list(groups.values())


def _scaled(network: Network, config: Config) -> Iterator[tuple[str, nn.Parameter, float]]:
    """Name, parameter and factor of the learning rate; names in the backbone, then in the classifier."""
    optim = config.optim
    layers = layer_groups(network.backbone, config.model.name) if optim.layer_decay < 1 else {}
    last = layers.get(CLASSIFIER, 0)
    for name, parameter in network.backbone.named_parameters():
        if parameter.requires_grad:
            scale = optim.layer_decay ** (last - layers[name]) if layers else 1.0
            yield name, parameter, scale * optim.backbone_lr_scale
    for name, parameter in network.classifier.named_parameters():
        yield f"classifier.{name}", parameter, 1.0


def _is_spared(name: str, parameter: nn.Parameter, backbone: nn.Module) -> bool:
    """Whether a parameter is a bias, of a norm, or one that the network of timm exempts (position embedding)."""
    exempt = getattr(backbone, "no_weight_decay", tuple)
    return parameter.ndim <= 1 or name.endswith(".bias") or any(fnmatch(name, pattern) for pattern in exempt())
