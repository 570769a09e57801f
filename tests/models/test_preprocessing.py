"""Mean, std and size that weights expect, by value and by the file that they come from."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from untrained_run import untrained_run

from fastcpc.cli import export
from fastcpc.config.schema import ModelConfig
from fastcpc.models.pretrained.preprocessing import (
    Preprocessing,
    named_weights,
    timm_preprocessing,
    weights_preprocessing,
)

HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE = "timm/tf_efficientnet_lite0"
PHOTOS = ("data.name=imagefolder", "data.root=gone", "data.resize=40", "data.crop=32", "cpc.embedding_dim=16")


def expected(name: str, weights: str) -> Preprocessing | None:
    return weights_preprocessing(ModelConfig(name=name, weights=weights))


@pytest.mark.parametrize(
    ("name", "weights", "mean", "std", "pixels"),
    [
        (LITE, "somewhere/lite.pth", HALF, HALF, 224),
        (LITE, "DEFAULT", HALF, HALF, 224),
        (LITE, "lite", HALF, HALF, 224),
        ("timm/tf_efficientnet_b0", "ap_in1k", HALF, HALF, 224),
        ("timm/tf_efficientnet_b0.ap_in1k", "b0.pth", HALF, HALF, 224),
        ("timm/tf_efficientnet_b0.ap_in1k", "ns_jft_in1k", *IMAGENET, 224),
        ("timm/resnet10t", "x.safetensors", *IMAGENET, 176),
        ("resnet50", "IMAGENET1K_V1", *IMAGENET, 224),
        ("resnet50", "downloaded.pth", *IMAGENET, 0),
    ],
)  # fmt: skip
def test_the_preprocessing_of_weights(name: str, weights: str, mean: object, std: object, pixels: int) -> None:
    found = expected(name, weights)
    assert found is not None and (found.mean, found.std, found.pixels, found.others) == (mean, std, pixels, ())


@pytest.mark.parametrize(
    ("name", "weights"),
    [(LITE, ""), ("preact_resnet18", "a.pth"), ("resnet50", "NO_SUCH"), ("timm/no_such_model", "a.pth")],
)
def test_where_the_preprocessing_is_not_known(name: str, weights: str) -> None:
    assert expected(name, weights) is None


def test_a_file_of_weights_that_the_name_does_not_say() -> None:
    found = expected("timm/tf_efficientnet_b0", "b0.pth")
    assert found is not None and (found.mean, found.std) == IMAGENET
    assert found.source == "timm/tf_efficientnet_b0.ns_jft_in1k" and found.others == ("tf_efficientnet_b0.ap_in1k",)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_vit.r160_in1k", "tf_efficientnet_b0.ap_in1k"])
def test_timms_own_answer_is_the_same(name: str) -> None:
    assert timm_preprocessing(name) == resolve_model_data_config(timm.create_model(name))


def test_the_tag_of_weights() -> None:
    assert named_weights("b0.one", "two") == "b0.two"
    assert all(named_weights("b0.one", weights) == "b0.one" for weights in ("", "DEFAULT", "a/b", "b.pth"))


@pytest.mark.parametrize("normalise", ["auto", "0.1,0.2,0.3/0.4,0.5,0.6"])
def test_weights_of_a_run_and_of_its_export_have_its_preprocessing(tmp_path: Path, normalise: str) -> None:
    settings = (*PHOTOS, "model.name=timm/test_resnet", f"data.normalise={normalise}")
    run = untrained_run(tmp_path / "run", ("a", "b"), *settings)
    assert export.main([str(run)]) == 0
    checkpoint = next(run.glob("checkpoints/epoch_*")) / "net1.safetensors"
    values = IMAGENET if normalise == "auto" else ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for path in (checkpoint, run / "model" / "model.safetensors"):
        found = expected("timm/test_resnet", str(path))
        assert found is not None and (found.mean, found.std, found.pixels) == (*values, 32)
    copied = tmp_path / "copied.safetensors"
    copied.write_bytes(checkpoint.read_bytes())
    assert expected("timm/test_resnet", str(copied)) is None  # no run says what its network expects


def test_a_config_of_another_program_beside_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    for content in ("{", "[]", json.dumps({"mean": [1], "std": [0], "input_size": [1, 2, 2]})):
        (tmp_path / "config.json").write_text(content)
        found = expected(LITE, str(path))
        assert found is not None and found.mean == HALF
