"""Whole runs on embeddings: every cleaner, bit-identical resume, one and two ranks, and the report with thumbnails."""

import json
import re
import shutil
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
from fastcpc.cli import train as train_command
from fastcpc.config import names
from fastcpc.config.load import to_yaml
from fastcpc.data.embeddings import loader
from fastcpc.data.identity import compare
from fastcpc.engine.outputs.data_record import from_bytes, read_record, to_bytes
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


def relabel(data: Path) -> None:
    labels = np.load(data / "train_labels.npy")
    labels[7] = (labels[7] + 1) % 3
    np.save(data / "train_labels.npy", labels)


def scale(data: Path) -> None:
    np.save(data / "train.npy", np.load(data / "train.npy") * np.float16(2))


def shorten(data: Path) -> None:
    for name in ("train", "train_labels"):
        np.save(data / f"{name}.npy", np.load(data / f"{name}.npy")[:-1])


def widen(data: Path) -> None:
    for name in ("train", "test"):
        values = np.load(data / f"{name}.npy")
        np.save(data / f"{name}.npy", np.concatenate([values, values[:, :1]], 1))


def other_test(data: Path) -> None:
    np.save(data / "test.npy", np.load(data / "test.npy")[::-1])


CHANGES: list[tuple[Callable[[Path], None], str, bool]] = [
    (relabel, r"\(train: 300 images then, 300 now; 1 relabelled \(first embedding/7: \d -> \d\)\)", True),
    (scale, r"\(other embeddings\)", True),
    (shorten, r"\(other embeddings; train: 300 images then, 299 now; 1 removed \(first embedding/299\)", True),
    (widen, r"\(embeddings of 24 dimensions then, 25 now\)", False),
    (other_test, r"\(other embeddings\)", True),
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on embeddings that stopped in its third epoch."""
    place = tmp_path_factory.mktemp("stopped")
    write_clusters(place / "data")
    with pytest.raises(Stopped):
        run(embedding_config(place / "data", place / "run"), StopAfter(31))
    return place


@pytest.mark.parametrize(("change", "message", "acceptable"), CHANGES)
def test_changed_embeddings_and_labels_are_noticed(
    change: Callable[[Path], None], message: str, acceptable: bool, stopped: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(stopped, tmp_path / "copy")
    data, folder = tmp_path / "copy" / "data", tmp_path / "copy" / "run"
    config = embedding_config(data, folder)
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(config))
    change(data)
    (folder / "config.yaml").write_text(file.read_text())
    evaluated = [str(folder), "--device", "cpu", "--split", "train"]
    for command, given in ((train_command, ["--config", str(file)]), (eval_command, evaluated)):
        assert command.main(given) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert re.search(message, line), line
    assert train_command.main(["--config", str(file), "--accept-changed-data"]) == (0 if acceptable else 2)
    assert (folder / "summary.json").exists() is acceptable


def test_a_record_without_values_of_embeddings_is_not_a_change(stopped: Path, tmp_path: Path) -> None:
    """Runs of earlier versions keep no digest of the values."""
    record = read_record(stopped / "run")
    assert record is not None and record.values.startswith("24:")
    old = replace(record, values="")
    assert from_bytes(to_bytes(old), tmp_path).digest == old.digest != record.digest
    assert compare(old, record) is None and compare(record, from_bytes(to_bytes(record), tmp_path)) is None


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
