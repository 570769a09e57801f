"""The preprocessing that weights expect: mean and std, size of the images, interpolation and crop.

``fastcpc-embed`` uses it for its network. ``engine/checkpoint/preprocessing.py`` uses it at the start of a run.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fastcpc.config.load import read_config
from fastcpc.config.names import TIMM_PREFIX, is_weights_path
from fastcpc.config.schema import ModelConfig
from fastcpc.config.sizes import BILINEAR
from fastcpc.data.registry import inference_transform
from fastcpc.errors import InputError
from fastcpc.models.pretrained.lite import LITE
from fastcpc.models.timm_backbone import DEFAULT_WEIGHTS

CENTER = "center"  # the only crop_mode of fastcpc
TORCHVISION_DEFAULT = "IMAGENET1K_V2"  # its weights of ResNet-50 all have one mean and std


@dataclass(frozen=True)
class Preprocessing:
    """What weights expect. mean, std: (C,), of pixels scaled to [0, 1]. pixels: side of the images, 0: not known.

    source: what says so. others: names of other weights of the model that expect another mean or std. It is empty
    where the name says which weights these are. crop_ratio: side of the crop to the shorter side of the resized image,
    0: not known. interpolation: as Pillow names it. crop_mode: as timm names it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int
    source: str
    others: tuple[str, ...] = ()
    crop_ratio: float = 0.0
    interpolation: str = BILINEAR
    crop_mode: str = CENTER

    def resize(self, crop: int) -> int:
        """The shorter side of the resized image for this crop, as timm computes it; 0: not known."""
        return math.floor(crop / self.crop_ratio) if self.crop_ratio else 0


def timm_preprocessing(name: str) -> dict[str, Any]:
    """The preprocessing of weights of timm, as timm's ``create_transform`` takes it.

    name: with or without the tag of its weights. A model without weights gets the defaults of timm.
    """
    import timm
    from timm.data import resolve_data_config  # type: ignore[attr-defined]

    known = timm.get_pretrained_cfg(name)
    resolved: dict[str, Any] = resolve_data_config(pretrained_cfg=known.to_dict() if known is not None else {})
    return resolved


def named_weights(name: str, weights: str) -> str:
    """The name that timm has for weights: a tag replaces that of the name; other values of model.weights keep it."""
    if not weights or weights in (DEFAULT_WEIGHTS, LITE) or is_weights_path(weights):
        return name
    return f"{name.partition('.')[0]}.{weights}"


def weights_preprocessing(model: ModelConfig) -> Preprocessing | None:
    """The preprocessing that ``model.weights`` expect; None without weights, and where it is not known.

    A file beside a config.json of an exported model, or in the folder of a run, has the preprocessing of that model.
    Other files have that of the weights that ``model.name`` names.
    """
    if not model.weights:
        return None
    if is_weights_path(model.weights):
        path = Path(model.weights).expanduser()
        exported = _of_export(path.parent / "config.json")
        if exported is not None:
            return exported
        if path.parent.parent.name == "checkpoints" and (path.parents[2] / "config.yaml").is_file():
            return _of_run(path.parents[2])
        if _is_network_of_fastcpc(path):
            return None
    if model.name.startswith(TIMM_PREFIX):
        return _of_timm(model.name.removeprefix(TIMM_PREFIX), model.weights)
    return _of_torchvision(model.weights) if model.name == "resnet50" else None


def _of_timm(name: str, weights: str) -> Preprocessing | None:
    import timm

    full_name = named_weights(name, weights)
    architecture, _, tag = full_name.partition(".")
    known = timm.get_pretrained_cfg(full_name)
    if known is None:
        return None  # the network is built next, and names the error
    own = timm_preprocessing(full_name)
    from_tag = tag or not is_weights_path(weights)
    others = [] if from_tag else timm.list_models(f"{architecture}.*", pretrained=True)
    different = [
        other for other in others
        if other.partition(".")[0] == architecture and not _same(timm_preprocessing(other), own)
    ]  # fmt: skip
    source = f"{TIMM_PREFIX}{architecture}.{known.tag}" if known.tag else TIMM_PREFIX + architecture
    return Preprocessing(
        tuple(own["mean"]),
        tuple(own["std"]),
        own["input_size"][-1],
        source,
        tuple(different),
        own["crop_pct"],
        own["interpolation"],
        own["crop_mode"],
    )


def _same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return (one["mean"], one["std"]) == (two["mean"], two["std"])


def _of_torchvision(weights: str) -> Preprocessing | None:
    from torchvision.models import ResNet50_Weights

    name = TORCHVISION_DEFAULT if is_weights_path(weights) else weights
    if name not in ResNet50_Weights.__members__:
        return None  # the network is built next, and names the error
    transforms = ResNet50_Weights[name].transforms()
    mean, std, source = tuple(transforms.mean), tuple(transforms.std), f"torchvision's {name}"
    if is_weights_path(weights):
        return Preprocessing(mean, std, 0, source)
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return Preprocessing(mean, std, crop, source, (), _ratio(crop, resize), transforms.interpolation.value)


def _ratio(crop: int, resize: int) -> float:
    """A ratio of which ``Preprocessing.resize`` is exact, whatever it rounds to."""
    return crop / (resize + 1e-3)


def _of_export(config: Path) -> Preprocessing | None:
    try:
        known = json.loads(config.read_bytes())
        known = known.get("pretrained_cfg", known)
        mean, std = (tuple(float(value) for value in known[key]) for key in ("mean", "std"))
        pixels, ratio = int(known["input_size"][-1]), float(known["crop_pct"])
        interpolation, crop_mode = str(known.get("interpolation", BILINEAR)), str(known.get("crop_mode", CENTER))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None  # no such file, or of another program
    if len(mean) != len(std) or min(std, default=0) <= 0:
        return None
    return Preprocessing(mean, std, pixels, str(config), (), ratio, interpolation, crop_mode)


def _of_run(run: Path) -> Preprocessing | None:
    try:
        inputs = inference_transform(read_config(run).data)
    except InputError:
        return None
    ratio = _ratio(inputs.crop, inputs.resize)
    return Preprocessing(inputs.mean, inputs.std, inputs.crop, f"the run {run}", (), ratio, inputs.interpolation)


def _is_network_of_fastcpc(path: Path) -> bool:
    """Whether a file has a whole network of fastcpc. Its run, and so its preprocessing, is not known here."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return any(key.startswith("head.prototypes") for key in file.keys())  # noqa: SIM118  not a dict
    except (OSError, SafetensorError):
        return False
