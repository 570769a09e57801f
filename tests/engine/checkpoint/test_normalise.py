"""A run that starts from weights feeds them mean and std that they expect, and keeps these to its end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from image_run import coloured_images
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

from fastcpc.cli import eval as evaluate
from fastcpc.cli import export, prepare, train
from fastcpc.config.load import load_config
from fastcpc.config.schema import AugmentConfig, Config, DataConfig, ModelConfig, RunConfig
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.registry import load_dataset
from fastcpc.engine.checkpoint.config_diff import changed_settings
from fastcpc.engine.checkpoint.normalise import with_weights_normalisation
from fastcpc.errors import InputError

HALF = "0.5,0.5,0.5/0.5,0.5,0.5"
CPU = torch.device("cpu")
needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and weights that expect mean and std 0.5."""
    folder = tmp_path_factory.mktemp("normalise")
    coloured_images(folder / "images")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), folder / "weights.safetensors")
    return folder


def config_of(place: Path, **data: Any) -> Config:
    return Config(
        data=DataConfig(name="imagefolder", root=str(place / "images"), resize=36, crop=32, **data),
        model=ModelConfig(name="timm/test_resnet", weights=str(place / "weights.safetensors")),
        run=RunConfig(dir=str(place / "no_run")),
    )


def arguments(place: Path, run: Path, *more: str) -> list[str]:
    return [
        "data.name=imagefolder", f"data.root={place / 'images'}", "data.resize=36", "data.crop=32", "data.feed=torch",
        "model.name=timm/test_resnet", f"model.weights={place / 'weights.safetensors'}", "cpc.embedding_dim=8",
        "train.epochs=2", "train.warmup_epochs=1", "train.batch_size=16", "device=cpu", "cleaner.kind=none",
        f"run.dir={run}", *more,
    ]  # fmt: skip


def saved(run: Path) -> str:
    return load_config([run / "config.yaml"], []).data.normalise


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("feed", ["torch", pytest.param("dali", marks=needs_dali)])
def test_views_of_every_loader_by_value(place: Path, feed: Any, cached: bool) -> None:
    root = place / "images"
    if cached:
        assert prepare.main(["imagefolder", "--root", str(root), "--jobs", "1", "--cache", "36"]) == 0
    config, notes = with_weights_normalisation(config_of(place, feed=feed, cache="auto" if cached else "off"))
    assert config.data.normalise == HALF
    (note,) = notes
    assert note == "data.crop=32: model.weights were trained on images of 160 pixels (timm/test_resnet.r160_in1k)"
    dataset = load_dataset(config.data)
    loader = make_loader(dataset.train, dataset, config.data, AugmentConfig(), CPU)
    (batch,) = loader.stream([torch.arange(4)], ("test",), 0)
    levels = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.PILToTensor()])
    for row in range(4):
        expected = (levels(Image.open(dataset.train.paths[row])).float() / 255 - 0.5) / 0.5  # type: ignore[union-attr]
        assert (batch.views[0][row] - expected).abs().mean() < 0.01  # a level is 0.0078; mean of ImageNet: 0.1 and more


def test_images_in_memory_by_value() -> None:
    dataset = load_dataset(DataConfig(name="digits", normalise="0.25/0.5"))
    loader = make_loader(dataset.train, dataset, DataConfig(name="digits"), AugmentConfig(), CPU)
    (batch,) = loader.stream([torch.arange(9)], ("test",), 0)
    expected = (dataset.train.pixels[:9].float() / 255 - 0.25) / 0.5  # type: ignore[union-attr]
    torch.testing.assert_close(batch.views[0], expected)
    with pytest.raises(
        InputError, match=r"data.normalise=0,0,0/1,1,1: 3 values for images of 1 channel; give 1 of each"
    ):
        load_dataset(DataConfig(name="digits", normalise="0,0,0/1,1,1"))


def test_a_run_keeps_the_values_in_all_its_commands(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(place, run)) == 0
    assert f"; mean and std {HALF}; " in (run / "train.log").read_text()
    assert saved(run) == HALF
    accuracy = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["test_top1"]
    assert evaluate.main([str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "eval_test_latest.json").read_text())["ensemble"]["top1"] == accuracy
    assert export.main([str(run)]) == 0
    exported = json.loads((run / "model" / "config.json").read_text())["pretrained_cfg"]
    assert exported["mean"] == exported["std"] == [0.5, 0.5, 0.5]
    assert train.main(arguments(place, run)) == 0  # the same command resumes
    assert "is a finished run" in capsys.readouterr().out
    from_it = f"run.resume={run}"
    assert train.main(arguments(place, tmp_path / "next", from_it, "train.epochs=3")) == 0
    assert saved(tmp_path / "next") == HALF
    assert train.main(arguments(place, tmp_path / "other", from_it, "data.normalise=data")) == 2
    assert f"data.normalise ('{HALF}' there, 'data' now)" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_keeps_mean_and_std_of_the_data_set(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(place, run, "data.normalise=data")) == 0
    content = yaml.safe_load((run / "config.yaml").read_text())
    del content["data"]["normalise"]
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    (run / "summary.json").unlink()
    assert train.main(arguments(place, run)) == 0
    assert saved(run) == "auto" and (run / "summary.json").exists()
    assert load_dataset(load_config([run / "config.yaml"], []).data).mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("auto", []),
        (HALF, []),
        ("data", ["0.485,0.456,0.406/0.229,0.224,0.225"]),
        ("0.1,0.2,0.3/0.4,0.5,0.6", ["0.1,0.2,0.3/0.4,0.5,0.6"]),
    ],
)
def test_an_explicit_setting_wins_with_a_warning(place: Path, given: str, said: list[str]) -> None:
    config = replace(config_of(place, normalise=given))
    found, notes = with_weights_normalisation(config)
    assert found.data.normalise == (HALF if given == "auto" else given)
    assert notes[1:] == [
        f"data.normalise={given}: model.weights expect mean and std {HALF} (timm/test_resnet.r160_in1k); the run uses "
        f"mean and std {values}"
        for values in said
    ]


@pytest.mark.parametrize(
    ("name", "model"),
    [("imagefolder", ModelConfig()), ("digits", ModelConfig(name="timm/test_resnet", weights="a.pt"))],
)
def test_without_weights_and_for_grey_images_nothing_changes(place: Path, name: str, model: ModelConfig) -> None:
    config = replace(config_of(place), model=model)
    config = replace(config, data=replace(config.data, name=name))
    assert with_weights_normalisation(config) == (config, [])


def test_weights_whose_name_is_open() -> None:
    model = ModelConfig(name="timm/tf_efficientnet_b0", weights="b0.pth")
    _, (note,) = with_weights_normalisation(Config(data=DataConfig(name="cifar10", root="gone"), model=model))
    other = "tf_efficientnet_b0.ap_in1k"
    assert note == (
        "data.normalise=auto: takes mean and std 0.485,0.456,0.406/0.229,0.224,0.225 "
        "(timm/tf_efficientnet_b0.ns_jft_in1k), but 1 other weights of this model "
        f"expect others ({other}); if yours are such, name them: model.name=timm/{other}"
    )


@pytest.mark.parametrize("text", ["none", "0.5", "0.5,0.5/0.5", "0,0,0/0,1,1", "nan,0,0/1,1,1", "1/1/1", ""])
def test_a_wrong_setting_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r": data\.normalise=.*: must be auto, data, or MEAN/STD per channel, such as"):
        load_config([], [f"data.normalise={text}"])


def test_auto_in_a_saved_config_is_the_data_sets() -> None:
    old, new = (Config(data=DataConfig(normalise=text)) for text in ("auto", "data"))
    assert changed_settings(old, new) == changed_settings(new, old) == []
    other = Config(data=DataConfig(normalise="0.5/0.5"))
    assert changed_settings(old, other) == ["data.normalise ('auto' there, '0.5/0.5' now)"]
