"""Exported models: folders that timm or a few lines of PyTorch can load.

    config.json          architecture, class names, mean, std, input size, as in timm's Hub folders
    model.safetensors    network 1
    net2/                network 2, a folder of the same layout
    README.md            the card
    model.onnx           both networks as one model (fastcpc-export --onnx)

Loading a folder executes no code of it: architectures are names, weights are safetensors.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import fastcpc
from fastcpc.config.names import TIMM_PREFIX
from fastcpc.config.schema import ModelConfig
from fastcpc.config.sizes import INTERPOLATIONS
from fastcpc.data.registry import inference_transform
from fastcpc.data.test_transform import InferenceTransform
from fastcpc.errors import InputError, RunError
from fastcpc.models.network import Network
from fastcpc.models.pretrained.weights import first_line
from fastcpc.report.export.ensemble import OWN, Architecture, ExportedModel
from fastcpc.report.results.networks import load_networks
from fastcpc.report.results.run import Run

CONFIG, WEIGHTS, SECOND = "config.json", "model.safetensors", "net2"
TOLERANCE = 1e-4  # largest difference between exported and original logits


def model_of(run: Run, checkpoint: Path) -> ExportedModel:
    """The networks of a run's checkpoint, on the CPU, without their prototypes.

    RunError where the checkpoint is damaged, or where the plain network with these weights gives other logits.
    """
    inputs = inference_transform(run.config.data)
    networks = load_networks(
        run.config, checkpoint, num_classes=len(run.class_names), in_channels=inputs.channels, image_size=inputs.crop
    )
    architecture, plain = plain_networks(run.config.model, networks, inputs, str(checkpoint))
    return ExportedModel(plain, architecture, inputs, run.class_names)


def plain_networks(
    model: ModelConfig, networks: Sequence[Network], inputs: InferenceTransform, source: str
) -> tuple[Architecture, tuple[nn.Module, ...]]:
    """The networks as plain modules, with their architecture.

    Some models of timm (LeViT, EfficientViT-M, DPN, VOLO) have another classifier than one linear layer. They become
    a backbone and a linear classifier. source: the start of the message of a RunError where the logits differ.
    """
    architecture = _architecture(model, networks[0], inputs)
    try:
        return architecture, _plain(architecture, networks, inputs, source)
    except RunError:
        if architecture.name.startswith(OWN) or not model.name.startswith(TIMM_PREFIX):
            raise
    name = f"{OWN}{model.name.partition('.')[0]}"
    architecture = dataclasses.replace(architecture, name=name)
    return architecture, _plain(architecture, networks, inputs, source)


def _plain(
    architecture: Architecture, networks: Sequence[Network], inputs: InferenceTransform, source: str
) -> tuple[nn.Module, ...]:
    plain = tuple(architecture.build().eval() for _ in networks)
    for target, network in zip(plain, networks, strict=True):
        copy_to_export(network, target, architecture)
        _compare(network, target, inputs, source)
    return plain


def files_of(model: ExportedModel) -> dict[str, bytes]:
    """config.json and weights of each network, by path inside the folder."""
    config = (json.dumps(_config(model), indent=2) + "\n").encode("ascii")
    files = {}
    for number, network in enumerate(model.networks, start=1):
        place = "" if number == 1 else f"net{number}/"
        tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        files[f"{place}{CONFIG}"] = config
        files[f"{place}{WEIGHTS}"] = safetensors.torch.save(tensors, metadata={"format": "pt"})
    return files


def load_model(folder: Path) -> ExportedModel:
    """The model of an exported folder, on the CPU. InputError in one line where it is damaged or another folder."""
    config_file = folder / CONFIG
    if not config_file.is_file():
        raise InputError(f"{folder} is not an exported model: it has no {CONFIG}; fastcpc-export RUN creates one")
    try:
        architecture, inputs, class_names = _read_config(json.loads(config_file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{config_file}: not written by fastcpc-export, or damaged ({first_line(error)}); export the run again"
        ) from None
    networks = tuple(_load_network(folder / place / WEIGHTS, architecture) for place in ("", SECOND))
    return ExportedModel(networks, architecture, inputs, class_names)


def _architecture(model: ModelConfig, network: Network, inputs: InferenceTransform) -> Architecture:
    fixed = False
    if model.name.startswith(TIMM_PREFIX):
        import timm

        full_name = model.name.removeprefix(TIMM_PREFIX)
        name, known = full_name.partition(".")[0], timm.get_pretrained_cfg(full_name)
        fixed = known is not None and bool(known.fixed_input_size)
    else:
        name = model.name if model.name == "resnet50" else OWN + model.name  # torchvision's ResNet-50 is timm's
    width = model.width if name.startswith(OWN) else 0
    return Architecture(name, network.num_classes, inputs.channels, inputs.crop, network.feature_dim, width, fixed)


def copy_to_export(network: Network, target: nn.Module, architecture: Architecture) -> None:
    """Copy backbone and classifier to a plain network; its classifier may have another name. RunError."""
    names = ["classifier"]
    backbone = network.backbone.state_dict()
    if architecture.name.startswith(OWN):
        backbone = {f"backbone.{name}": tensor for name, tensor in backbone.items()}
    else:
        classifier: Any = target.get_submodule("").pretrained_cfg["classifier"]  # type: ignore[index]
        names = [classifier] if isinstance(classifier, str) else list(classifier)
    for name in names:  # some models average two classifiers
        for part, tensor in network.classifier.state_dict().items():
            backbone[f"{name}.{part}"] = tensor
    try:
        target.load_state_dict(backbone)
    except RuntimeError as error:
        raise RunError(f"model.name={architecture.name}: cannot be exported: {str(error).splitlines()[-1]}") from error


@torch.no_grad()
def _compare(network: Network, target: nn.Module, inputs: InferenceTransform, source: str) -> None:
    shape = (2, inputs.channels, inputs.crop, inputs.crop)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    difference = float((network.eval()(images) - target(images)).abs().max())
    if not difference <= TOLERANCE:
        raise RunError(
            f"{source}: the plain network's logits differ from the run's by {difference:.1e}; it is not exported"
        )


def _config(model: ExportedModel) -> dict[str, Any]:
    """config.json as timm reads it; the entry ``fastcpc`` has what timm lacks."""
    architecture, inputs = model.architecture, model.inputs
    arguments: dict[str, Any] = {"in_chans": architecture.channels}
    if architecture.fixed_size:
        arguments["img_size"] = architecture.image_size
    input_size = [inputs.channels, inputs.crop, inputs.crop]
    pretrained = {
        "input_size": input_size, "fixed_input_size": architecture.fixed_size, "interpolation": inputs.interpolation,
        # timm resizes the shorter side to floor(crop / crop_pct)
        "crop_pct": inputs.crop / (inputs.resize + 1e-3), "crop_mode": "center", "mean": list(inputs.mean),
        "std": list(inputs.std), "num_classes": architecture.num_classes, "custom_load": False,
    }  # fmt: skip
    if not architecture.name.startswith(OWN):
        known = getattr(model.networks[0], "pretrained_cfg", {})
        pretrained |= {key: known[key] for key in ("first_conv", "classifier") if key in known}
    return {
        "architecture": architecture.name,
        "num_classes": architecture.num_classes,
        "num_features": architecture.num_features,
        "label_names": list(model.class_names),
        "model_args": arguments,
        "pretrained_cfg": pretrained,
        "fastcpc": {
            "version": fastcpc.__version__,
            "networks": len(model.networks),
            "resize": inputs.resize,
            "width": architecture.width,
        },
    }


def _read_config(config: Mapping[str, Any]) -> tuple[Architecture, InferenceTransform, tuple[str, ...]]:
    """The inverse of ``_config``; ValueError, KeyError or TypeError on other content."""
    pretrained, own = config["pretrained_cfg"], config["fastcpc"]
    channels, crop, width_pixels = (int(value) for value in pretrained["input_size"])
    mean, std = (tuple(float(value) for value in pretrained[key]) for key in ("mean", "std"))
    names = tuple(config["label_names"])
    num_classes, name = int(config["num_classes"]), config["architecture"]
    if not (isinstance(name, str) and (name.startswith(OWN) or _timm_knows(name))):
        raise ValueError(f"unknown architecture {name!r}")
    whole = channels in (1, 3) and crop == width_pixels and len(mean) == len(std) == channels and min(std) > 0
    whole = whole and pretrained["interpolation"] in INTERPOLATIONS
    if not whole or len(names) != num_classes or not all(isinstance(text, str) for text in names):
        raise ValueError("sizes do not match")
    inputs = InferenceTransform(channels, int(own["resize"]), crop, mean, std, pretrained["interpolation"])
    architecture = Architecture(
        name, num_classes, channels, crop, int(config["num_features"]), int(own["width"]),
        bool(pretrained["fixed_input_size"]),
    )  # fmt: skip
    return architecture, inputs, names


def _timm_knows(name: str) -> bool:
    import timm

    return bool(timm.is_model(name))


def _load_network(path: Path, architecture: Architecture) -> nn.Module:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(path.read_bytes())
        network = architecture.build().eval()
        network.load_state_dict(tensors)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; export the run again") from None
    # safetensors and torch raise many types for damaged files and for weights of another network
    except Exception as error:
        raise InputError(f"{path}: not the weights of {architecture.name} ({first_line(error)[:120]})") from None
    return network
