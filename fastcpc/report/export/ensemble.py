"""The exported model: two plain networks and their ensemble, from pixels to logits, without training code."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcpc.data.test_transform import InferenceTransform
from fastcpc.models.build import own_backbone

OWN = "fastcpc/"  # prefix of architectures that timm does not have


@dataclass(frozen=True)
class Architecture:
    """The parameters from which a network is built.

    name: a model of timm, without tag, or ``fastcpc/NAME``; ``fastcpc/timm/NAME`` is a backbone of timm with a linear
    classifier, for models whose own classifier is not one linear layer. num_features: D. width: of fastcpc's networks.
    fixed_size: whether timm builds the model for one image size.
    """

    name: str
    num_classes: int
    channels: int
    image_size: int
    num_features: int
    width: int = 0
    fixed_size: bool = False

    def build(self) -> nn.Module:
        """The network with random weights: images (B, C, S, S), normalised, to logits (B, K)."""
        if not self.name.startswith(OWN):
            import timm

            size: dict[str, Any] = {"img_size": self.image_size} if self.fixed_size else {}
            network: nn.Module = timm.create_model(
                self.name, pretrained=False, in_chans=self.channels, num_classes=self.num_classes, **size
            )
            return network
        backbone = own_backbone(self.name.removeprefix(OWN), self.channels, self.image_size, self.width)
        classifier = nn.Linear(self.num_features, self.num_classes)
        return nn.Sequential(OrderedDict(backbone=backbone, classifier=classifier))


class Ensemble(nn.Module):
    """The mean logits of all networks, from pixels, in evaluation mode.

    networks: each maps normalised images (B, C, S, S) to logits (B, K). The predicted class is the maximum, as in the
    evaluation during training. The softmax of the output gives probabilities.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, networks: Sequence[nn.Module], inputs: InferenceTransform) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("mean", torch.tensor(inputs.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(inputs.std).view(1, -1, 1, 1))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: float32 (B, C, S, S) in [0, 1]. Returns float32 (B, K)."""
        images = (pixels - self.mean) / self.std
        return torch.stack([network(images) for network in self.networks]).mean(0)


@dataclass(frozen=True)
class ExportedModel:
    """The networks of an export, as ``Ensemble`` takes them; all have one architecture."""

    networks: tuple[nn.Module, ...]
    architecture: Architecture
    inputs: InferenceTransform
    class_names: tuple[str, ...]

    def ensemble(self) -> Ensemble:
        """All networks as one module."""
        return Ensemble(self.networks, self.inputs)
