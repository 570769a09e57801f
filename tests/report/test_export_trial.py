"""Models that timm builds with another classifier, that ONNX cannot have, or that are too large for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from untrained_run import untrained_run

from fastcpc.cli import export, predict
from fastcpc.cli import train as train_command
from fastcpc.cli.actions import train as train_action
from fastcpc.config.load import load_config
from fastcpc.config.schema import Config
from fastcpc.report.export import onnx_file, trial
from fastcpc.report.export.model_folder import load_model

NAMES = ("cat", "dog")
IMAGES = ("data.name=imagefolder", "data.root=gone", "cpc.embedding_dim=16")
DIGITS = ("data.name=digits", "model.name=digits_cnn", "model.width=16", "cpc.embedding_dim=16")
SMALL = (*IMAGES, "data.resize=72", "data.crop=64", "model.name=timm/test_vit")


@pytest.mark.parametrize(
    ("name", "side"), [("efficientvit_m0", 224), ("dpn48b", 64)], ids=["norm_linear", "convolution"]
)
def test_models_with_another_classifier_are_exported_and_predict(
    tmp_path: Path, name: str, side: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (*IMAGES, f"data.resize={side}", f"data.crop={side}", f"model.name=timm/{name}")
    folder = untrained_run(tmp_path / "run", NAMES, *settings)
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)).save(tmp_path / "a.png")
    assert export.main([str(folder)]) == 0
    capsys.readouterr()
    lines = []
    for model in (folder, folder / "model"):
        assert predict.main([str(model), str(tmp_path / "a.png")]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert load_model(folder / "model").architecture.name == f"fastcpc/timm/{name}"
    assert f'own_backbone("timm/{name}", 3, {side}, 0)' in (folder / "model" / "README.md").read_text()


def test_more_weights_than_an_onnx_file_can_have_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    folder = untrained_run(tmp_path / "run", tuple("0123456789"), *DIGITS)
    assert export.main([str(folder), "--onnx"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "more than one ONNX file can have (2 GiB); export without --onnx" in said
    assert not (folder / "model").exists()


def test_a_model_that_torch_cannot_convert_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise TypeError("no such operation\na long report")

    monkeypatch.setattr(torch.onnx, "export", fails)
    folder = untrained_run(tmp_path / "run", tuple("0123456789"), *DIGITS)
    assert export.main([str(folder), "--onnx"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--onnx: torch cannot convert fastcpc/digits_cnn (TypeError: no such operation); export without" in said
    assert trial.export_problem(load_config([], SMALL)).startswith("this model cannot be exported to ONNX: --onnx:")
    assert trial.export_problem(load_config([], DIGITS)) == ""


def test_the_dry_run_says_what_cannot_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(config: Config) -> None:
        del config

    monkeypatch.setattr(train_action, "dry_run", nothing)
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    assert train_command.main([*SMALL, f"data.root={tmp_path}", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "dry run: this model cannot be exported to ONNX: --onnx: the networks have" in shown.out + shown.err
