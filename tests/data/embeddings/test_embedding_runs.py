"""Whole runs on embeddings: every cleaner, bit-identical resume, one and two ranks, and the report with thumbnails."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_embeddings import embedding_config, write_clusters
from PIL import Image
from several_ranks import on_ranks
from small_run import StopAfter, assert_same_run, metrics, run, weights

from fastcpc.cli import clean as clean_command
from fastcpc.cli import eval as eval_command
from fastcpc.cli import export as export_command
from fastcpc.cli import report as report_command
from fastcpc.config import names
from fastcpc.config.load import to_yaml
from fastcpc.data.embeddings import loader
from fastcpc.engine.step_loop import Stopped


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    write_clusters(folder)
    return folder


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "alone"
    run(embedding_config(data, folder))
    return folder


class Counted:
    """A function that counts its calls; bound as a method."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function, self.calls = function, 0

    def __get__(self, instance: object, owner: type) -> Callable[..., None]:
        self.calls += 1
        return self.function.__get__(instance, owner)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", names.CLEANER_KINDS)
def test_every_cleaner_trains_on_embeddings(data: Path, tmp_path: Path, kind: str) -> None:
    summary = run(embedding_config(data, tmp_path / "run", kind, train={"epochs": 3}, cleaner={"warmup": 0.0}))
    assert summary["finished"] and summary["final_top1"] > 70  # by chance: 33


def test_a_hidden_layer_and_dropout_train(data: Path, tmp_path: Path) -> None:
    changes = {"model": {"name": "mlp"}, "augment": {"embeddings": "dropout"}}
    config = embedding_config(data, tmp_path / "run")
    config = replace(config, **{name: replace(getattr(config, name), **change) for name, change in changes.items()})
    assert run(config)["final_top1"] > 70
    assert weights(tmp_path / "run")[0]["backbone.1.weight"].shape == (8 * 16, 24)


def test_a_stopped_run_resumes_bit_identically(data: Path, alone: Path, tmp_path: Path) -> None:
    config = embedding_config(data, tmp_path / "run")
    for looks in (9, 31):
        with pytest.raises(Stopped):
            run(config, StopAfter(looks))
    run(config)
    assert_same_run(alone, tmp_path / "run")


@pytest.mark.parametrize("kind", ["gmm_awr", "cpc_awr", "confusion"])
def test_features_on_demand_are_bit_identical(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run(embedding_config(data, tmp_path / "kept", kind))
    monkeypatch.setattr(loader, "KEPT_BYTES", 0)
    monkeypatch.setattr(loader.StandardisedRows, "__init__", counted := Counted(loader.StandardisedRows.__init__))
    run(embedding_config(data, tmp_path / "run", kind))
    assert counted.calls == 4  # three cleanings and the end
    assert_same_run(tmp_path / "kept", tmp_path / "run")


def test_two_ranks_equal_one(data: Path, alone: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(embedding_config(data, tmp_path / "two")))
    on_ranks(2, "rank_runs:train_file", file)
    for one, other in zip(metrics(alone), metrics(tmp_path / "two"), strict=True):
        assert one["labelled"] == other["labelled"] and one["test_top1"] == pytest.approx(other["test_top1"], abs=1.2)
        np.testing.assert_allclose(one["loss_total"], other["loss_total"], atol=1e-4)
    tables = [pq.read_table(folder / "clean_probabilities.parquet") for folder in (alone, tmp_path / "two")]
    assert tables[0]["is_clean"] == tables[1]["is_clean"]


def test_the_commands_read_a_run_on_embeddings(alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_command.main([str(alone)]) == 0
    files = ["--out", str(tmp_path / "s.csv"), "--cleaned-list", str(tmp_path / "l.csv")]
    assert clean_command.main([str(alone), *files]) == 0
    labels = [line.split(",")[1] for line in (tmp_path / "l.csv").read_text().splitlines()[1:]]
    given = pq.read_table(alone / "clean_probabilities.parquet")["given_label"].to_pylist()
    assert len(labels) == 300 and np.mean([str(g) != label for g, label in zip(given, labels, strict=True)]) > 0.05
    assert report_command.main([str(alone), "--out", str(tmp_path / "r.html")]) == 0
    assert "data.root is empty: it names the folder of the images" in (tmp_path / "r.html").read_text()
    assert export_command.main([str(alone), "--out", str(tmp_path / "model")]) == 2
    assert "this run classifies embeddings, not images" in capsys.readouterr().err


def test_the_report_shows_the_images_where_paths_are_known(data: Path, tmp_path: Path) -> None:
    values = np.load(data / "train.npy")[:60]
    labels = np.load(data / "train_labels.npy")[:60]
    np.save(tmp_path / "x.npy", values)
    lines = ["path,label", *(f"{row}.png,{label}" for row, label in enumerate(labels))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for row in range(60):
        Image.fromarray(np.full((60, 60, 3), row, np.uint8)).save(tmp_path / f"{row}.png")
    config = embedding_config(data, tmp_path / "run", "gmm_agn")
    files = {"embeddings": str(tmp_path / "x.npy"), "labels": str(tmp_path / "t.csv"), "root": str(tmp_path)}
    run(replace(config, data=replace(config.data, **files)))
    assert report_command.main([str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["suspected"] > 0
    assert (tmp_path / "run" / "report.html").read_text().count("data:image/jpeg") == summary["suspected"]
