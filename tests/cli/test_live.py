"""Figures in TensorBoard and on W&B during training."""

import io
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from small_run import StopAfter, assert_same_run, metrics, run, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_file import history, records, summary

from fastcpc.cli import train as command
from fastcpc.config.load import to_yaml
from fastcpc.engine.launch import train
from fastcpc.engine.loggers import run_log
from fastcpc.engine.loggers.figure_schedule import FigureImages, FigureSchedule
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.engine.step_loop import Stopped
from fastcpc.report.html.training_figures import run_figures

TAGS = ["figures/auc", "figures/confusion", "figures/losses", "figures/suspects"]


def main(folder: Path, *settings: str) -> int:
    """fastcpc-train on the small config."""
    file = folder.with_suffix(".yaml")
    file.write_text(to_yaml(small_config(folder)))
    return command.main(["--config", str(file), *settings])


def images(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings take no time, so that none is put off."""
    monkeypatch.setattr(run_log, "FigureSchedule", partial(FigureSchedule, clock=lambda: 0.0))


@pytest.mark.usefixtures("no_time")
def test_figures_are_drawn_and_do_not_change_the_run(tmp_path: Path) -> None:
    assert main(tmp_path / "shown", "log.figures_every=1") == 0
    run(small_config(tmp_path / "hidden"))
    assert_same_run(tmp_path / "shown", tmp_path / "hidden")
    events = images(tmp_path / "shown")
    assert sorted(events.Tags()["images"]) == TAGS
    for tag in TAGS:
        drawn = events.Images(tag)
        assert [image.step for image in drawn] == [1, 2, 3, 4], tag
        pixels = [np.asarray(Image.open(io.BytesIO(image.encoded_image_string))) for image in drawn]
        assert (pixels[0][0, 0] == 255).all()
        if tag != "figures/confusion":  # whose shares may stay the same
            assert pixels[0].shape != pixels[-1].shape or (pixels[0] != pixels[-1]).any(), tag
    assert not images(tmp_path / "hidden").Tags()["images"]


def test_a_figure_that_cannot_be_drawn_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def draw_figures(folder: Path) -> FigureImages:
        (folder / "scores_last.npz").write_bytes(b"no archive")
        return run_figures(folder)

    config = small_config(tmp_path / "run")
    with RunDir(config) as folder:
        assert train(config, folder, StopAfter(), draw_figures)["finished"]
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("figures cannot be drawn (InputError:") == 1
    assert "scores_last.npz: is damaged" in log
    assert len(metrics(tmp_path / "run")) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("no_time")
def test_wandb_gets_epochs_figures_and_summary_of_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    config = small_config(folder, log={"wandb": "digits", "figures_every": 1})
    for stop in (StopAfter(60), StopAfter()):
        with RunDir(config) as opened:
            try:
                ended = train(config, opened, stop, run_figures)
            except Stopped:
                assert len(metrics(folder)) in (2, 3)
    assert ended["finished"]
    wandb.teardown()  # waits until the files are complete, as the end of a process does
    known = json.loads((folder / "wandb.json").read_text())
    files = sorted(folder.glob(f"wandb/offline-run-*/run-{known['id']}.wandb"))
    assert len(files) == 2
    for file, code in zip(files, (1, 0), strict=True):
        (begun,) = [record.run for record in records(file) if record.WhichOneof("record_type") == "run"]
        assert (begun.run_id, begun.project, begun.display_name) == (known["id"], "digits", "run")
        settings = {item.key or item.nested_key[0]: item.value_json for item in begun.config.update}
        assert settings["cleaner.kind"] == '"cpc_awr"' and settings["train.epochs"] == "4"
        assert [record.exit.exit_code for record in records(file) if record.HasField("exit")] == [code]
    lines = [line for file in files for line in history(file)]
    assert [line["_step"] for line in lines] == [0, 1, 2, 3, 4]
    for line, epoch in zip(lines, metrics(folder), strict=False):
        assert line["test_top1"] == epoch["test_top1"]
        assert line["labelled/net2"] == epoch["labelled"][1]
    shown = [line for line in lines if f"{TAGS[0]}/path" in line]
    assert sorted({line["_step"] for line in shown}) == [1, 2, 3, 4]
    for line in shown:
        for tag in TAGS:
            assert line[f"{tag}/_type"] == "image-file"
            (path,) = folder.glob(f"wandb/offline-run-*/files/{line[f'{tag}/path']}")
            with Image.open(path) as image:
                assert image.size == (line[f"{tag}/width"], line[f"{tag}/height"])
    assert summary(files[1])["best_top1"] == ended["best_top1"]
    assert summary(files[1])["suspected"] == ended["suspected"]


def test_a_missing_wandb_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(tmp_path / "run", "log.wandb=digits") == 2
    assert capsys.readouterr().err.splitlines() == [
        "fastcpc-train: error: log.wandb=digits: wandb is not installed; pip install 'fastcpc[wandb]', or leave "
        "log.wandb empty"
    ]


class Failing:
    """Replaces wandb, to fail in ways that the real one does not on demand."""

    Settings = SimpleNamespace
    Error = RuntimeError

    def __init__(self, *, at: str) -> None:
        self.at = at

    def init(self, **settings: Any) -> "Failing":
        if self.at == "init":
            raise self.Error("api_key not configured (no-tty). call wandb.login(key=[your_api_key])")
        return self

    offline, dir = True, "somewhere"

    def log(self, *args: Any, **settings: Any) -> None:
        raise self.Error("the service is gone")


def test_wandb_that_fails_to_start_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Failing(at="init"))
    assert main(tmp_path / "run", "log.wandb=digits") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastcpc-train: error: log.wandb=digits: failed to start (api_key not configured")
    (tmp_path / "run" / "wandb.json").write_text("{")
    assert main(tmp_path / "run", "log.wandb=digits") == 2
    assert "wandb.json: is damaged; delete it" in capsys.readouterr().err


def test_wandb_that_fails_later_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Failing(at="log"))
    assert run(small_config(tmp_path / "run", log={"wandb": "digits"}))["finished"]
    log = (tmp_path / "run" / "train.log").read_text()
    assert (
        log.count(
            "W&B logging is off after an error (RuntimeError: the service is gone); training continues without it"
        )
        == 1
    )
