"""Groups of layers in the order of depth, for layer-wise learning rates, and freezing of layers.

timm defines the groups of its networks (``group_matcher``). Other networks have none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from fastcpc.config.schema import ModelConfig
from fastcpc.errors import InputError
from fastcpc.models.network import Network

FREEZE_NONE, FREEZE_BACKBONE = "none", "backbone"
CLASSIFIER = "classifier"  # key of ``layer_groups``; no parameter has this name, as each ends in .weight or the like


def layer_groups(backbone: nn.Module, model_name: str) -> dict[str, int]:
    """The group of each parameter by name, 0 for the stem; under CLASSIFIER that of the classifier, the largest.

    The backbone has no classifier, which is a group of its own in most networks of timm, and a part of the last group
    in others. InputError where the network has no groups, or only one.
    """
    from timm.models import group_parameters

    matcher = getattr(backbone, "group_matcher", None)
    known = getattr(backbone, "pretrained_cfg", {}).get("classifier") or "head"
    classifier = known if isinstance(known, str) else known[0]
    whole: Any = _WithClassifier(backbone, classifier)
    groups: dict[str, int] = group_parameters(whole, matcher(coarse=False), reverse=True) if matcher else {}
    if groups:
        groups[CLASSIFIER] = groups.pop(classifier)
    if len(set(groups.values())) < 2:
        raise InputError(
            f"model.name={model_name}: has no groups of layers, which optim.layer_decay and model.freeze=N need; use a "
            "network of timm (timm/NAME) that has them, or optim.layer_decay=1 and model.freeze=none"
        )
    return groups


@dataclass(frozen=True)
class _WithClassifier:
    """The names of a network of timm with its classifier, as far as ``group_parameters`` reads them."""

    backbone: nn.Module
    classifier: str

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter | None]]:
        """Names and parameters of the backbone, then the classifier's name."""
        yield from self.backbone.named_parameters()
        yield self.classifier, None


def freeze_layers(network: Network, model: ModelConfig) -> None:
    """Apply ``model.freeze`` in place: frozen parameters get no gradient.

    backbone: the whole backbone is always in evaluation mode. N: of the first N groups, BatchNorm layers are.
    InputError where N leaves no group to train.
    """
    if model.freeze == FREEZE_NONE:
        return
    backbone = network.backbone
    if model.freeze == FREEZE_BACKBONE:
        backbone.requires_grad_(False)
        network.frozen = (backbone,)
    else:
        groups, count = layer_groups(backbone, model.name), int(model.freeze)
        total = max(groups[name] for name, _ in backbone.named_parameters()) + 1
        if count >= total:
            raise InputError(
                f"model.freeze={count}: {model.name} has {total} groups of layers; give fewer, or model.freeze=backbone"
            )
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(groups[name] >= count)
        norms = [layer for layer in backbone.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
        network.frozen = tuple(layer for layer in norms if _is_frozen(layer))
    network.train(network.training)


def _is_frozen(layer: nn.Module) -> bool:
    own = list(layer.parameters())
    return bool(own) and not any(parameter.requires_grad for parameter in own)
