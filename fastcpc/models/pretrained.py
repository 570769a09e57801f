"""Backbones of torchvision and timm, with random weights, weights from a file, or the library's own by name.

Weights by name are the only thing here that goes to the network, and only when ``model.weights`` asks for them.
"""

import difflib
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import nn

from fastcpc.errors import InputError
from fastcpc.models.weights import copy_weights, first_line, is_path, load_weights

TIMM_PREFIX = "timm/"
OWN_NAMES = ("preact_resnet18", "digits_cnn", "small_cnn", "resnet50")
DEFAULT_WEIGHTS = "DEFAULT"


def resnet50(in_channels: int, weights: str) -> nn.Module:
    """torchvision's ResNet-50 without its classifier: images (B, C, H, W) to features (B, 2048).

    in_channels: 1 or more, 3 for the library's weights; weights: empty, a path, or a name such as IMAGENET1K_V1.
    Raises InputError. Source: He et al. 2016; the peers' network on Clothing1M with IMAGENET1K_V1.
    """
    backbone: nn.Module = torchvision.models.resnet50(weights=None)
    backbone.fc = nn.Identity()
    if in_channels != 3:
        backbone.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if is_path(weights):
        load_weights(backbone, Path(weights).expanduser(), ["fc"])
    elif weights:
        _download_torchvision(backbone, torchvision.models.ResNet50_Weights, weights)
    return backbone


def timm_backbone(name: str, in_channels: int, image_size: int, weights: str) -> nn.Module:
    """A timm model without its classifier: images (B, C, H, W) to features (B, D).

    name: timm's name of the model, with or without the tag of its weights; in_channels: 1 or more; image_size: pixels,
    used by models of a fixed size; weights: empty, a path, a tag of the model, or DEFAULT (the tag in the name, else
    timm's choice).
    Raises InputError: an unknown model or tag, weights that do not fit or cannot be fetched.
    """
    if not timm.is_model(name):
        raise unknown_name(TIMM_PREFIX + name)
    architecture, _, tag = name.partition(".")
    by_name = bool(weights) and not is_path(weights)
    if by_name and weights != DEFAULT_WEIGHTS:
        tag = weights
    _check_tag(architecture, tag, "model.weights" if by_name and weights != DEFAULT_WEIGHTS else "model.name")
    full_name = f"{architecture}.{tag}" if tag else architecture
    pretrained_cfg = timm.get_pretrained_cfg(full_name)
    size: dict[str, Any] = (
        {"img_size": image_size} if pretrained_cfg is not None and pretrained_cfg.fixed_input_size else {}
    )
    try:
        backbone = timm.create_model(full_name, pretrained=by_name, in_chans=in_channels, num_classes=0, **size)
    except Exception as error:
        # timm and its hub client raise a dozen unrelated classes here, down to those of the HTTP library.
        what = f"model.weights={weights}" if by_name else f"model.name={TIMM_PREFIX}{name}"
        way_out = "; a path to a downloaded file works without a network" if by_name else ""
        raise InputError(f"{what}: timm cannot make it: {first_line(error)}{way_out}") from error
    if is_path(weights):
        load_weights(backbone, Path(weights).expanduser(), _classifier_names(pretrained_cfg))
    return backbone


def unknown_name(name: str) -> InputError:
    """The error for a ``model.name`` that nobody knows, with the names nearest to it."""
    models = timm.list_models()
    shown = {model: TIMM_PREFIX + model for model in models} | {own: own for own in OWN_NAMES}
    near = difflib.get_close_matches(name.removeprefix(TIMM_PREFIX).partition(".")[0], list(shown), n=3, cutoff=0.6)
    nearest = f"near it: {', '.join(shown[match] for match in near)}; " if near else ""
    return InputError(
        f"model.name={name}: no such model; {nearest}known are {', '.join(OWN_NAMES)} and "
        f"timm/NAME for the {len(models)} models of timm {timm.__version__}"
    )


def _download_torchvision(backbone: nn.Module, known: type[torchvision.models.WeightsEnum], weights: str) -> None:
    """Fetch weights by their name in torchvision and copy them into the backbone."""
    if weights not in known.__members__:
        raise InputError(
            f"model.weights={weights}: neither a path nor a name of torchvision's weights "
            f"({', '.join(known.__members__)})"
        )
    try:
        tensors = known[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"model.weights={weights}: cannot be fetched from {known[weights].url}: {first_line(error)}; "
            "a path to a downloaded file works without a network"
        ) from error
    copy_weights(backbone, tensors, ["fc"], f"model.weights={weights}")


def _check_tag(architecture: str, tag: str, key: str) -> None:
    """Refuse a tag that the architecture has no weights for."""
    names = timm.list_models(f"{architecture}.*", pretrained=True)
    tags = [known.partition(".")[2] for known in names if known.partition(".")[0] == architecture]
    if tag and tag not in tags:
        raise InputError(f"{key}: timm's {architecture} has no weights {tag!r}; it has {', '.join(tags) or 'none'}")


def _classifier_names(pretrained_cfg: "timm.models.PretrainedCfg | None") -> list[str]:
    """Names of the classifier's modules in timm's whole model."""
    classifier = None if pretrained_cfg is None else pretrained_cfg.classifier
    if classifier is None:
        return []
    return [classifier] if isinstance(classifier, str) else list(classifier)
