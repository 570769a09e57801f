"""A run with corrections: what it trains on, and how it resumes with the same and with another file."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from decisions import true_decisions, with_decisions
from small_run import StopAfter, assert_same_run, run, small_config

from fastcpc.cli import clean, report
from fastcpc.cli import eval as evaluate
from fastcpc.config.schema import Config
from fastcpc.data.corrections.decisions import corrections_csv
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.launch import train
from fastcpc.engine.outputs.corrections_file import read_applied
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError

NUM = 40  # of 240 samples have a decision


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corrections and a finished run with them."""
    place = tmp_path_factory.mktemp("corrected")
    run(config_of(place))
    return place


def config_of(place: Path, name: str = "run") -> Config:
    config = with_decisions(small_config(place / name), place / "c.csv", NUM)
    return replace(config, cleaner=replace(config.cleaner, loss_history=3))


def test_corrected_labels_are_clean_and_removed_samples_absent(place: Path) -> None:
    config = small_config(place / "unused")
    table = {row["index"]: row for row in pq.read_table(place / "run" / "clean_probabilities.parquet").to_pylist()}
    decisions = true_decisions(config, NUM)
    assert read_applied(place / "run") == decisions
    assert len(table) == 240 - NUM // 4
    for one in decisions:
        if one.decision == "remove":
            assert one.index not in table
            continue
        row = table[one.index]
        assert (row["given_label"], row["clean_probability"], row["is_clean"]) == (one.label, 1.0, True)
        assert {row[f"q_{name}_{i}"] for name in ("gmm", "cpc") for i in (1, 2)} == {1.0}
    assert any(row["clean_probability"] < 1 for row in table.values())
    members = load(find_checkpoint(place / "run", "latest"))[1]["members"]
    sure = torch.tensor([index in {one.index for one in decisions} for index in table])
    for member in members:
        assert member["partition"] is not None
        clean_N, prob_N = member["partition"]
        assert bool(clean_N[sure].all()) and bool((prob_N[sure] == 1).all()) and not bool(clean_N.all())


def test_a_stopped_run_with_corrections_is_bit_identical(place: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with pytest.raises(Stopped):
        run(config, StopAfter(45))
    (tmp_path / "c.csv").rename(tmp_path / "moved.csv")  # the file may move
    run(replace(config, data=replace(config.data, corrections=str(tmp_path / "moved.csv"))))
    assert_same_run(place / "run", tmp_path / "run")


def test_commands_read_a_run_whose_corrections_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path)
    config = replace(config, train=replace(config.train, epochs=2))
    run(config)
    (tmp_path / "c.csv").unlink()
    folder = tmp_path / "run"
    assert evaluate.main([str(folder), "--split", "train", "--device", "cpu"]) == 0
    assert clean.main([str(folder), "--cleaned-list", str(tmp_path / "labels.csv")]) == 0
    assert report.main([str(folder)]) == 0
    capsys.readouterr()
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Past decisions" in text and "40 decisions (" in text
    labels = dict(line.split(",") for line in (tmp_path / "labels.csv").read_text().split()[1:])
    table = pq.read_table(folder / "clean_probabilities.parquet").to_pylist()
    suspects = {row["index"] for row in table if not row["is_clean"]}
    for one in true_decisions(small_config(folder), NUM):
        if one.decision != "remove":
            assert one.index not in suspects and labels[str(one.index)] == str(one.label)


@pytest.mark.parametrize("num", [NUM + 8, 0])
def test_other_corrections_are_refused_and_accepted_on_request(num: int, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with pytest.raises(Stopped):
        run(config, StopAfter(45))
    position = load(find_checkpoint(tmp_path / "run", "latest"))[1]["position"]
    assert position["epoch"] >= 2 and position["stage"] > 0
    other = replace(config, data=replace(config.data, corrections=str(tmp_path / "other.csv") if num else ""))
    (tmp_path / "other.csv").write_bytes(corrections_csv(true_decisions(small_config(tmp_path / "x"), num)))
    with pytest.raises(InputError, match=r"data\.corrections confirms other labels.*--accept-changed-data"):
        run(other)
    with RunDir(other) as folder:
        train(other, folder, StopAfter(), accept_changed_data=True)
    table = pq.read_table(tmp_path / "run" / "clean_probabilities.parquet")
    assert len(table) == 240 - num // 4
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["finished"]
    assert (tmp_path / "run" / "applied_corrections.csv").exists() == bool(num)


def test_a_keep_alone_is_another_data_set(tmp_path: Path) -> None:
    """Labels and samples are the same, and yet the partition of the interrupted epoch no longer holds."""
    config = small_config(tmp_path / "run")
    with pytest.raises(Stopped):
        run(config, StopAfter(45))
    kept = [replace(one, decision="keep", label=one.given) for one in true_decisions(config, 12)]
    (tmp_path / "c.csv").write_bytes(corrections_csv(kept))
    other = replace(config, data=replace(config.data, corrections=str(tmp_path / "c.csv")))
    with pytest.raises(InputError, match=r"\(data\.corrections confirms other labels\); restore the data set"):
        run(other)
    with RunDir(other) as folder:
        train(other, folder, StopAfter(), accept_changed_data=True)
        log = (tmp_path / "run" / "train.log").read_text()
    assert "240 training images keep their state" in log
    table = pq.read_table(tmp_path / "run" / "clean_probabilities.parquet").to_pylist()
    sure = {one.index for one in kept}
    assert all(row["clean_probability"] == 1 for row in table if row["index"] in sure)
