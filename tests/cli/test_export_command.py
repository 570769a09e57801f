"""fastcpc-export: the files give the same logits in timm, PyTorch and ONNX Runtime."""

import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import yaml
from finished_run import finished_run
from safetensors.torch import load_file, save_file
from untrained_run import untrained_run

from fastcpc.cli import export as command
from fastcpc.cli.actions import export as action
from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.data.registry import inference_transform
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.errors import InputError, RunError
from fastcpc.models.build import build_network
from fastcpc.models.network import Network
from fastcpc.report.export import onnx_file
from fastcpc.report.export.ensemble import Architecture, ExportedModel
from fastcpc.report.export.model_folder import copy_to_export, load_model
from fastcpc.report.results.networks import load_networks
from fastcpc.report.results.run import read_run

DIGITS = ("data.name=digits", "model.name=digits_cnn", "model.width=16", "cpc.embedding_dim=16")
CIFAR = ("data.name=cifar10", "data.root=gone", "model.name=preact_resnet18", "model.width=16", "cpc.embedding_dim=16")
SMALL = (*CIFAR[:2], "model.name=small_cnn", *CIFAR[3:])
AIRBENCH = (*CIFAR[:2], "model.name=airbench", *CIFAR[3:])
PHOTOS = ("data.name=imagefolder", "data.root=gone", "data.resize=72", "data.crop=64", "cpc.embedding_dim=16")
RESNET = (*PHOTOS, "model.name=timm/resnet10t")
VIT = (*PHOTOS, "model.name=timm/test_vit.r160_in1k")  # of a fixed size, and its classifier is not called fc
TEN = tuple("0123456789")
NAMES = ("cat", 'a "b", <c>', "*=1\\|`")


def networks_of(folder: Path) -> tuple[list[Network], torch.Tensor]:
    """The run's own networks, and images for them."""
    run = read_run(folder)
    inputs = inference_transform(run.config.data)
    networks = load_networks(
        run.config, find_checkpoint(folder, "latest"), num_classes=len(run.class_names), in_channels=inputs.channels,
        image_size=inputs.crop,
    )  # fmt: skip
    draws = torch.Generator().manual_seed(1)
    return [n.eval() for n in networks], torch.randn(3, inputs.channels, inputs.crop, inputs.crop, generator=draws)


@pytest.mark.parametrize("settings", [RESNET, VIT], ids=["resnet10t", "test_vit"])
def test_timm_loads_both_networks(tmp_path: Path, settings: tuple[str, ...]) -> None:
    folder = untrained_run(tmp_path / "run", NAMES, *settings)
    assert command.main([str(folder), "--out", str(tmp_path / "m")]) == 0
    networks, images = networks_of(folder)
    for place, network in zip(("m", "m/net2"), networks, strict=True):
        model = timm.create_model(f"local-dir:{tmp_path / place}", pretrained=True).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(images), network(images), rtol=1e-5, atol=1e-5)
        assert list(model.pretrained_cfg["label_names"]) == list(NAMES)
    data = timm.data.resolve_model_data_config(model)
    assert (data["input_size"], data["interpolation"], data["crop_mode"]) == ((3, 64, 64), "bilinear", "center")
    assert data["mean"] == [0.485, 0.456, 0.406] and data["std"] == [0.229, 0.224, 0.225]
    transform = timm.data.create_transform(**data)
    assert "size=72" in str(transform) and "CenterCrop(size=(64, 64))" in str(transform)


def test_resnet50_of_torchvision_equals_resnet50_of_timm() -> None:
    network = build_network(
        ModelConfig(name="resnet50"), CpcConfig(), num_classes=3, in_channels=3, image_size=32, seed=1
    ).eval()
    architecture = Architecture("resnet50", 3, 3, 32, 2048)
    target = architecture.build().eval()
    copy_to_export(network, target, architecture)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(target(images), network(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [DIGITS, CIFAR, SMALL, AIRBENCH], ids=lambda settings: settings[-3])
def test_the_code_in_the_card_loads_networks_of_fastcpc(tmp_path: Path, settings: tuple[str, ...]) -> None:
    folder = untrained_run(tmp_path / "run", TEN, *settings)
    assert command.main([str(folder)]) == 0
    networks, images = networks_of(folder)
    text = (folder / "model" / "README.md").read_text()
    lines = re.findall(r"```python\n(.*?)```", text, re.S)[0].replace("FOLDER", str(folder / "model"))
    space: dict[str, Any] = {"images": images}
    exec(lines, space)
    torch.testing.assert_close(space["logits"], networks[0](images))
    second = load_model(folder / "model").networks[1]
    torch.testing.assert_close(second(images), networks[1](images))


def test_onnx_computes_both_networks_at_any_batch_size(tmp_path: Path) -> None:
    folder = untrained_run(tmp_path / "run", TEN, *DIGITS)
    assert command.main([str(folder), "--onnx"]) == 0
    networks, _ = networks_of(folder)
    inputs = inference_transform(read_run(folder).config.data)
    content = (folder / "model" / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (inputs.mean, inputs.std))
    for num_images in (1, 7):
        pixels = torch.rand(num_images, inputs.channels, inputs.crop, inputs.crop)
        with torch.no_grad():
            expected = sum(network((pixels - mean) / std) for network in networks) / 2
        (found,) = session.run(None, {"pixels": pixels.numpy()})
        assert isinstance(expected, torch.Tensor)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert "float32 (batch, channels, height, width)" in (folder / "model" / "README.md").read_text()
    other = load_model(folder / "model")
    other.networks[1].load_state_dict(other.networks[0].state_dict())
    with pytest.raises(RunError, match=r"ONNX Runtime's logits differ from PyTorch's by .* no ONNX file is written"):
        onnx_file.check(content, other)


def test_a_wrong_onnx_file_leaves_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ExportedModel) -> bytes:
        raise RunError("logits differ")

    monkeypatch.setattr(action, "onnx_bytes", wrong)
    folder = untrained_run(tmp_path / "run", TEN, *DIGITS)
    assert command.main([str(folder), "--onnx"]) == 1
    assert not (folder / "model").exists()


def test_a_missing_onnx_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = untrained_run(tmp_path / "run", TEN, *DIGITS)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    assert command.main([str(folder), "--onnx"]) == 2
    assert "--onnx: onnxscript not installed; pip install 'fastcpc[onnx]'" in capsys.readouterr().err


def test_the_card_of_a_real_run(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    assert command.main([str(folder), "--checkpoint", "best"]) == 0
    text = (folder / "model" / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    summary = json.loads((folder / "summary.json").read_text())
    assert header["license"] == "cc-by-4.0" and header["library_name"] == "fastcpc"
    assert header["datasets"] == ["digits"] and "noisy-labels" in header["tags"]
    metric = header["model-index"][0]["results"][0]["metrics"][0]
    assert metric["type"] == "accuracy" and metric["value"] == pytest.approx(summary["best_top1"] / 100, abs=1e-5)
    assert f"{summary['best_top1']:.2f} %" in text and "CC BY 4.0" in text


def test_hostile_names_are_escaped_in_the_card(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "# heading\n---\nlicense: mit", "[x](http://y)")
    folder = untrained_run(tmp_path / "run", names, *RESNET, "run.name=a: [b] # <c>")
    assert command.main([str(folder), "--license", "mit: {x}"]) == 0
    text = (folder / "model" / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "mit: {x}" and header["model-index"][0]["name"] == "a: [b] # <c>"
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body and "\n# heading" not in body and "[x](" not in body.replace("\\", "\0")
    assert json.loads((folder / "model" / "config.json").read_text())["label_names"] == list(names)


def test_only_an_earlier_export_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = untrained_run(tmp_path / "run", TEN, *DIGITS)
    assert command.main([str(folder)]) == 0
    assert command.main([str(folder)]) == 2
    assert "model exists already; give another --out, or --force" in capsys.readouterr().err
    (folder / "model" / "mine.txt").write_text("old")
    assert command.main([str(folder), "--force"]) == 0
    assert sorted(path.name for path in (folder / "model").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "net2",
    ]  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    assert command.main([str(folder), "--out", str(other), "--force"]) == 2
    assert "other is not an exported model, so --force does not replace it" in capsys.readouterr().err
    assert (other / "mine.txt").read_text() == "mine"
    assert command.main([str(folder), "--out", str(tmp_path / "no" / "m")]) == 2


def test_a_failed_write_leaves_the_earlier_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = untrained_run(tmp_path / "run", TEN, *DIGITS)
    assert command.main([str(folder)]) == 0
    before = {path.name for path in folder.iterdir()}
    real, calls = os.rename, []

    def fails_second(source: Any, target: Any) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", fails_second)
    assert command.main([str(folder), "--force"]) == 1
    assert "no space left on the device" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == before
    assert load_model(folder / "model").class_names == TEN


def rewrite_config(**changes: Any) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        config = json.loads((model / "config.json").read_text()) | changes
        (model / "config.json").write_text(json.dumps(config))

    return spoil


def shrink(model: Path) -> None:
    tensors = load_file(model / "net2" / "model.safetensors")
    save_file(
        {name: tensor[:1].clone() for name, tensor in tensors.items() if tensor.ndim}, model / "model.safetensors"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: (model / "config.json").unlink(), r"m is not an exported model: it has no config.json"),
        (lambda model: (model / "config.json").write_text("{"), r"not written by fastcpc-export, or damaged"),
        (lambda model: (model / "config.json").write_text("[]"), r"not written by fastcpc-export, or damaged"),
        (rewrite_config(architecture="os.system"), r"unknown architecture 'os\.system'"),
        (
            rewrite_config(architecture="fastcpc/none"),
            r"not the weights of fastcpc/none \(ValueError: .* is not a network",
        ),
        (rewrite_config(label_names=["a"]), r"sizes do not match"),
        (rewrite_config(fastcpc={}), r"damaged \(KeyError: 'resize'\)"),
        (lambda model: (model / "net2" / "model.safetensors").unlink(), r"net2/model.safetensors is missing; export"),
        (
            lambda model: (model / "model.safetensors").write_bytes(b"\x80\x04x"),
            r"not the weights of fastcpc/digits_cnn",
        ),
        (shrink, r"model.safetensors: not the weights of fastcpc/digits_cnn"),
    ],
)
def test_a_folder_without_a_model_gives_one_line(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = untrained_run(tmp_path / "run", TEN, *DIGITS)
    assert command.main([str(folder), "--out", str(tmp_path / "m")]) == 0
    spoil(tmp_path / "m")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "m")
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value), str(caught.value)
