"""A run that starts from weights gives them the preprocessing that they expect, and keeps it to its end."""

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
from timm.data import create_transform  # type: ignore[attr-defined]
from torchvision.transforms import v2

from fastcpc.cli import eval as evaluate
from fastcpc.cli import export, prepare, train
from fastcpc.config.load import load_config
from fastcpc.config.schema import AugmentConfig, Config, DataConfig, ModelConfig, RunConfig
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.registry import inference_transform, load_dataset
from fastcpc.data.test_transform import center_crop_view
from fastcpc.engine.checkpoint import preprocessing
from fastcpc.engine.checkpoint.config_diff import changed_settings
from fastcpc.engine.checkpoint.preprocessing import with_weights_preprocessing
from fastcpc.errors import InputError
from fastcpc.models.pretrained.preprocessing import Preprocessing, timm_preprocessing

MODES = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}
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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("feed", ["torch", pytest.param("dali", marks=needs_dali)])
def test_views_of_every_loader_by_value(place: Path, feed: Any, cached: bool, interpolation: Any) -> None:
    root = place / "images"
    make = ["imagefolder", "--root", str(root), "--jobs", "1", "--cache", "36", "--interpolation", interpolation]
    if cached:
        assert prepare.main(make) == 0
    named = {} if interpolation == "bilinear" else {"interpolation": interpolation}
    settings = config_of(place, feed=feed, cache="auto" if cached else "off", **named)
    config, (note, *more) = with_weights_preprocessing(settings)
    assert more.pop(0) == "data.resize=36: model.weights expect 33 for data.crop=32 (timm/test_resnet.r160_in1k)"
    assert more == [
        f"data.interpolation={name}: model.weights expect bilinear (timm/test_resnet.r160_in1k); the run uses {name}"
        for name in named.values()
    ]
    assert config.data.normalise == HALF
    assert note == "data.crop=32: model.weights were trained on images of 160 pixels (timm/test_resnet.r160_in1k)"
    dataset = load_dataset(config.data)
    loader = make_loader(dataset.train, dataset, config.data, AugmentConfig(), CPU)
    (batch,) = loader.stream([torch.arange(4)], ("test",), 0)
    for row in range(4):
        image = Image.open(dataset.train.paths[row])  # type: ignore[union-attr]
        differences = {name: float((batch.views[0][row] - timm_view(image, name)).abs().mean()) for name in MODES}
        assert differences[interpolation] < 0.01  # a level is 0.0078; mean of ImageNet: 0.1 and more
        assert min(differences, key=differences.__getitem__) == interpolation
    shown = center_crop_view(dataset.train.paths[0], inference_transform(config.data))  # type: ignore[union-attr]
    expected = timm_view(Image.open(dataset.train.paths[0]), interpolation)  # type: ignore[union-attr]
    torch.testing.assert_close((torch.from_numpy(shown).float() / 255 - 0.5) / 0.5, expected)


def timm_view(image: Image.Image, interpolation: str) -> torch.Tensor:
    """The test view as torchvision makes it, with mean and std 0.5."""
    resize = v2.Resize(36, MODES[interpolation], antialias=True)
    view: torch.Tensor = v2.Compose([resize, v2.CenterCrop(32), v2.PILToTensor()])(image)
    return (view.float() / 255 - 0.5) / 0.5


def test_a_cache_of_another_interpolation_is_rejected(place: Path) -> None:
    root = place / "images"
    assert prepare.main(["imagefolder", "--root", str(root), "--jobs", "1", "--cache", "36"]) == 0
    config = config_of(place, feed="torch", interpolation="bicubic")
    dataset = load_dataset(config.data)
    with pytest.raises(InputError) as caught:
        make_loader(dataset.train, dataset, config.data, AugmentConfig(), CPU)
    assert str(caught.value).partition(".parquet: ")[2] == (
        f"made with data.interpolation=bilinear, which is bicubic; run fastcpc-prepare imagefolder --root {root} "
        "--cache 36 --interpolation bicubic, or set data.cache=off"
    )


@pytest.mark.parametrize(
    ("data", "decided", "said"),
    [
        ({}, (168, 160, "bicubic"), []),
        ({"crop": 64}, (67, 64, "bicubic"), ["data.crop=64: model.weights were trained on images of 160 pixels"]),
        (
            {"crop": 64, "resize": 100},
            (100, 64, "bicubic"),
            ["data.crop=64: model.weights were trained", "data.resize=100: model.weights expect 67 for data.crop=64"],
        ),
        ({"crop": 160, "resize": 168}, (168, 160, "bicubic"), []),
        ({"resize": 168}, (168, 160, "bicubic"), []),
        ({"resize": 200}, (200, 160, "bicubic"), ["data.resize=200: model.weights expect 168 for data.crop=160"]),
        ({"interpolation": "bicubic"}, (168, 160, "bicubic"), []),
        (
            {"interpolation": "bilinear"},
            (168, 160, "bilinear"),
            ["data.interpolation=bilinear: model.weights expect bicubic"],
        ),
    ],
)
def test_open_sizes_are_those_of_the_weights(place: Path, data: Any, decided: Any, said: list[str]) -> None:
    """timm's test_vit: 160 pixels, bicubic, crop ratio 0.95."""
    config = Config(
        data=DataConfig(name="imagefolder", root=str(place / "images"), **data),
        model=ModelConfig(name="timm/test_vit", weights="a.safetensors"),
        run=RunConfig(dir=str(place / "no_run")),
    )
    found, notes = with_weights_preprocessing(config)
    assert (found.data.resize, found.data.crop, found.data.interpolation) == decided
    assert len(notes) == len(said) and all(note.startswith(start) for note, start in zip(notes, said, strict=True))
    without = replace(config, model=ModelConfig())
    expected = (data.get("resize", 256), data.get("crop", 224), data.get("interpolation", "bilinear"))
    if expected[0] >= expected[1]:
        plain = with_weights_preprocessing(without)[0].data
        assert (plain.resize, plain.crop, plain.interpolation) == expected


@pytest.mark.parametrize("feed", ["torch", pytest.param("dali", marks=needs_dali)])
def test_open_sizes_give_the_view_of_timm(place: Path, feed: Any) -> None:
    """The resized image, from which all views are cropped, follows timm's crop_pct in the loaders and in prediction."""
    model = ModelConfig(name="timm/test_vit", weights="a.safetensors")
    data = DataConfig(name="imagefolder", root=str(place / "images"), feed=feed, cache="off")
    data = with_weights_preprocessing(Config(data=data, model=model))[0].data
    known = timm_preprocessing("test_vit.r160_in1k")
    assert known["crop_pct"] == 0.95 and known["interpolation"] == "bicubic"
    view = create_transform(**known)
    dataset = load_dataset(data)
    (batch,) = make_loader(dataset.train, dataset, data, AugmentConfig(), CPU).stream([torch.arange(4)], ("test",), 0)
    for row in range(4):
        expected = view(Image.open(dataset.train.paths[row]))  # type: ignore[union-attr]
        assert float((batch.views[0][row] - expected).abs().mean()) < 0.01
    inputs = inference_transform(data)
    shown = torch.from_numpy(center_crop_view(dataset.train.paths[3], inputs)).float() / 255  # type: ignore[union-attr]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (inputs.mean, inputs.std))
    torch.testing.assert_close((shown - mean) / std, expected)


def test_a_given_size_below_the_crop_of_the_weights_is_an_error(place: Path) -> None:
    model = ModelConfig(name="timm/test_vit", weights="a.safetensors")
    config = Config(data=DataConfig(name="imagefolder", root="gone", resize=100), model=model)
    with pytest.raises(InputError, match=r"^data\.crop=160: must not exceed data\.resize=100, the shorter side"):
        with_weights_preprocessing(config)


def test_a_crop_mode_that_fastcpc_lacks_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Preprocessing((0.5,) * 3, (0.5,) * 3, 224, "timm/some", (), 1.0, "lanczos", "squash")
    monkeypatch.setattr(preprocessing, "weights_preprocessing", lambda model: known)
    config = Config(data=DataConfig(name="imagefolder", root="gone"), model=ModelConfig(weights="a.pt"))
    found, notes = with_weights_preprocessing(config)
    assert (found.data.resize, found.data.crop, found.data.interpolation) == (224, 224, "bilinear")
    assert notes == [
        "data.interpolation=auto: model.weights expect lanczos (timm/some); the run uses bilinear",
        "model.weights: expect images by crop mode squash (timm/some); the run crops the centre",
    ]


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
    assert f"; 32 of 36 pixels, bilinear; mean and std {HALF}; " in (run / "train.log").read_text()
    assert saved(run) == HALF
    accuracy = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["test_top1"]
    assert evaluate.main([str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "eval_test_latest.json").read_text())["ensemble"]["top1"] == accuracy
    assert export.main([str(run)]) == 0
    exported = json.loads((run / "model" / "config.json").read_text())["pretrained_cfg"]
    assert exported["mean"] == exported["std"] == [0.5, 0.5, 0.5] and exported["interpolation"] == "bilinear"
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
    del content["data"]["normalise"], content["data"]["interpolation"]
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    (run / "summary.json").unlink()
    assert train.main(arguments(place, run)) == 0
    assert saved(run) == "auto" and load_config([run / "config.yaml"], []).data.interpolation == "bilinear"
    assert (run / "summary.json").exists()
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
    found, notes = with_weights_preprocessing(config)
    assert found.data.normalise == (HALF if given == "auto" else given)
    assert notes[2:] == [
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
    plain = replace(config, data=replace(config.data, interpolation="bilinear"))
    assert with_weights_preprocessing(config) == (plain, [])


def test_weights_whose_name_is_open() -> None:
    model = ModelConfig(name="timm/tf_efficientnet_b0", weights="b0.pth")
    _, (note,) = with_weights_preprocessing(Config(data=DataConfig(name="cifar10", root="gone"), model=model))
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
    old, new = Config(), Config(data=DataConfig(resize=256, crop=224, interpolation="bilinear"))
    assert changed_settings(old, new) == changed_settings(new, old) == []
    cubic = Config(data=DataConfig(interpolation="bicubic"))
    assert changed_settings(old, cubic) == ["data.interpolation ('bilinear' there, 'bicubic' now)"]
    other = Config(data=DataConfig(normalise="0.5/0.5"))
    assert changed_settings(old, other) == ["data.normalise ('auto' there, '0.5/0.5' now)"]
