"""Tiny networks of timm train with the settings of fine-tuning, and every command uses the average of weights."""

import csv
import json
from pathlib import Path

import pytest
import torch
from image_run import coloured_images
from safetensors.torch import load_file
from small_run import StopAfter, assert_same_run, run

from fastcpc.cli import eval as evaluate
from fastcpc.cli import export, predict, train
from fastcpc.config.load import load_config
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError

FINETUNE = (
    "optim.name=adamw", "optim.layer_decay=0.7", "optim.decay_norms=false", "optim.clip_norm=1", "train.lr=1e-3",
    "train.weight_decay=0.05", "train.schedule=cosine", "train.warmup_steps=2", "ema.decay=0.8",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune") / "images"
    coloured_images(folder)
    return folder


def arguments(images: Path, folder: Path, model: str, *more: str) -> list[str]:
    return [
        "data.name=imagefolder", f"data.root={images}", "data.resize=36", "data.crop=32", "data.feed=torch",
        "data.workers=1", f"model.name=timm/{model}", "cpc.embedding_dim=8", "cpc.passes=2", "cleaner.kind=cpc_agn",
        "cleaner.warmup=0", "train.epochs=2", "train.warmup_epochs=1", "train.batch_size=16", "device=cpu",
        "noise.kind=asym_next", "noise.rate=0.3", "precision=fp32", "log.figures_every=0", f"run.dir={folder}",
        *FINETUNE, *more,
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["test_vit", "test_convnext"])
def test_tiny_networks_train_with_every_setting(model: str, images: Path, tmp_path: Path) -> None:
    """A run that stops inside an epoch is bit-identical, with drop path too. The commands after training use the
    average: equal accuracy, weights and classes."""
    folder = tmp_path / "run"
    assert train.main(arguments(images, folder, model, "model.drop_path=0.1")) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == pytest.approx([5e-4, 1e-3 * (1 + 2**-0.5) / 2], rel=0.5)
    assert all(value is not None for line in lines for value in line["loss_total"])
    stopped = load_config([], arguments(images, tmp_path / "stopped" / "run", model, "model.drop_path=0.1"))
    with pytest.raises(Stopped):
        run(stopped, StopAfter(11))
    assert load(find_checkpoint(tmp_path / "stopped" / "run", "latest"))[1]["position"]["step"] > 0
    run(stopped)
    assert_same_run(folder, tmp_path / "stopped" / "run")
    networks, state = load(find_checkpoint(folder, "latest"))
    assert any(not torch.equal(networks[0][name], value) for name, value in state["members"][0]["weights"].items())
    assert evaluate.main([str(folder), "--device", "cpu"]) == 0
    assert json.loads((folder / "eval_test_latest.json").read_text())["ensemble"]["top1"] == lines[-1]["test_top1"]
    assert export.main([str(folder)]) == 0
    exported = load_file(folder / "model" / "model.safetensors")
    backbone = {name.removeprefix("backbone."): value for name, value in networks[0].items()}
    same = [name for name in exported if name in backbone]
    assert len(same) > 10 and all(torch.equal(exported[name], backbone[name]) for name in same)
    assert predict.main([str(folder), str(images / "test"), "--out", str(tmp_path / "out.csv"), "--device", "cpu"]) == 0
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["predicted_class"] == Path(row["path"]).parent.name for row in rows]
    assert 100 * sum(right) / len(right) == pytest.approx(lines[-1]["test_top1"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("train.warmup_steps=6", "train.warmup_steps=6: must be below the 6 steps of the run (train.epochs=2 of 3"),
        ("model.drop_path=0.1 model.name=timm/vgg11", "model.drop_path=0.1: timm/vgg11 has no residual blocks"),
        ("model.freeze=40 model.weights=W", "model.freeze=40: timm/test_vit has 7 groups of layers; give fewer"),
    ],
)
def test_what_only_the_network_or_the_data_shows_is_one_line(
    more: str, said: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "=W" in more:
        import timm
        from safetensors.torch import save_file

        save_file(timm.create_model("test_vit", img_size=32).state_dict(), tmp_path / "W.safetensors")
        more = more.replace("=W", f"={tmp_path / 'W.safetensors'}")
    assert train.main(arguments(images, tmp_path / "run", "test_vit", *more.split())) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1 and said in errors[0]


def test_another_optimiser_cannot_load_a_checkpoint(images: Path, tmp_path: Path) -> None:
    plain = arguments(images, tmp_path / "plain", "test_vit", "optim.name=sgd", "train.epochs=1", "cleaner.kind=none")
    run(load_config([], plain))
    start = f"run.resume={tmp_path / 'plain'}"
    other = load_config([], arguments(images, tmp_path / "other", "test_vit", start, "cleaner.kind=none"))
    with pytest.raises(InputError, match=r"other settings: optim\.name \('sgd' there, 'adamw' now\)"):
        run(other)
