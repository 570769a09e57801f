"""Build a network from the settings; the same seed gives the same weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fastcpc.config.names import TIMM_PREFIX, is_weights_path
from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.errors import InputError
from fastcpc.models.backbones import (  # noqa: F401  each registers its network
    airbench,
    digits_cnn,
    preact_resnet,
    resnet50,
    small_cnn,
)
from fastcpc.models.embeddings import heads  # noqa: F401
from fastcpc.models.network import Network
from fastcpc.models.pretrained.weights import first_line, load_weights
from fastcpc.models.prototype_head import PrototypeHead
from fastcpc.models.registry import registered_backbones
from fastcpc.models.timm_backbone import timm_backbone, unknown_name


def build_network(
    model: ModelConfig, cpc: CpcConfig, *, num_classes: int, in_channels: int, image_size: int, seed: int
) -> Network:
    """Build a network on the CPU, in train mode.

    num_classes: K, 2 or more; in_channels, image_size: of its images, in pixels; seed: of the initial weights, 0 or
    more. The global random state does not change.
    Raises InputError: unknown model, missing weights or weights of other shapes, images that the model cannot process,
    an embedding not smaller than the features.
    """
    if num_classes < 2:
        raise InputError(f"data: {num_classes} class; a classifier needs 2 or more")
    with torch.random.fork_rng(devices=[]):
        # Only the generator of the CPU: torch.manual_seed would also reset those of the devices, which are not saved.
        torch.default_generator.manual_seed(seed)
        backbone = _backbone(model, in_channels, image_size)
        feature_dim = _feature_dim(backbone, model.name, in_channels, image_size)
        if cpc.embedding_dim >= feature_dim:
            raise InputError(
                f"cpc.embedding_dim={cpc.embedding_dim}: must be below the {feature_dim} features of "
                f"model.name={model.name} (model.width={model.width})"
            )
        head = PrototypeHead(feature_dim, cpc.embedding_dim, num_classes, cpc.projector, cpc.normalise)
        return Network(backbone, feature_dim, num_classes, head).train()


def own_backbone(name: str, in_channels: int, image_size: int, width: int) -> nn.Module:
    """A registered network, or timm/NAME without its classifier, with random weights. ValueError: unknown name."""
    if name.startswith(TIMM_PREFIX):
        return timm_backbone(name.removeprefix(TIMM_PREFIX), in_channels, image_size, "")
    backbones = registered_backbones()
    if name not in backbones:
        raise ValueError(f"{name} is not a network of fastcpc")
    return backbones[name].build(in_channels, image_size, width)


def _backbone(model: ModelConfig, in_channels: int, image_size: int) -> nn.Module:
    if model.name.startswith(TIMM_PREFIX):
        name = model.name.removeprefix(TIMM_PREFIX)
        return timm_backbone(name, in_channels, image_size, model.weights, model.drop_path)
    backbones = registered_backbones()
    if model.name not in backbones:
        raise unknown_name(model.name)
    entry = backbones[model.name]
    backbone = entry.build(in_channels, image_size, model.width)
    if is_weights_path(model.weights):
        load_weights(backbone, Path(model.weights).expanduser(), entry.classifier)
    elif model.weights:
        if entry.load_named is None:
            raise InputError(f"model.weights={model.weights}: {model.name} has no weights by name, only by path")
        entry.load_named(backbone, model.weights)
    return backbone


def _feature_dim(backbone: nn.Module, name: str, in_channels: int, image_size: int) -> int:
    """The feature size, from one image; InputError where the model cannot process images of this size."""
    shape = f"{in_channels}x{image_size}x{image_size}"
    try:
        with torch.no_grad():
            features: Tensor = backbone.eval()(torch.zeros(1, in_channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"model.name={name}: cannot process images of {shape}: {first_line(error)}") from error
    if features.ndim != 2:
        raise InputError(
            f"model.name={name}: gives features of shape {tuple(features.shape)[1:]}; needs one vector per image"
        )
    return features.shape[1]
