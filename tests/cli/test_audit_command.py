"""fastcpc-audit: from a folder of images, or from embeddings, to a run folder that the other commands read."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from embed_sets import model_options, write_images, write_weights
from made_embeddings import CLASSES, clusters

from fastcpc.cli import clean as clean_command
from fastcpc.cli import eval as eval_command
from fastcpc.cli import report as report_command
from fastcpc.cli.embeddings import audit as audit_command
from fastcpc.config.load import load_config
from fastcpc.engine.launch import load_data

CLEANING_COLUMNS = (
    *("index", "path", "given_label", "predicted_label", "q_gmm_1", "q_gmm_2", "q_cpc_1", "q_cpc_2"),
    *("clean_probability", "p_given", "p_predicted", "is_clean"),
)


def write_noisy(folder: Path, rate: float) -> np.ndarray:
    """x.npy, y.npy with wrong labels, t.npy and u.npy as a test set; returns which labels are wrong."""
    values, labels = clusters(600, spread=0.8)
    given = labels.copy()
    wrong = np.random.default_rng(3).random(600) < rate
    given[wrong] = (given[wrong] + 1) % CLASSES
    test, truth = clusters(90, seed=2, spread=0.8)
    for name, array in (("x", values.astype(np.float16)), ("y", given), ("t", test), ("u", truth)):
        np.save(folder / f"{name}.npy", array)
    return wrong


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as text:
        return list(csv.DictReader(text))


def test_from_a_folder_of_images_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "images", per_class=24, wrong=3)
    write_weights(tmp_path / "w.pt")
    run = tmp_path / "run"
    arguments = [str(tmp_path / "images"), "--out", str(run), *model_options(tmp_path / "w.pt")]
    assert audit_command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"written to {run}: suspects.csv" in printed and "of 72" in printed
    assert (run / "embeddings" / "embeddings.npy").is_file()
    suspects = rows_of(run / "suspects.csv")
    planted = {f"{name}/{number:02}.jpg" for name in ("blue", "green", "red") for number in range(3)}
    found = [row["path"] for row in suspects]
    assert len(planted & set(found)) >= 6, found
    assert {"path", "given_label", "predicted_label", "label_score"} <= set(suspects[0])
    page = (run / "report.html").read_text()
    assert page.count("data:image/jpeg") + page.count("data:image/png") == len(suspects)
    assert "Estimated confusion of labels" in page and "out of sample" in page

    assert audit_command.main(arguments) == 2
    assert "holds an audit already" in capsys.readouterr().err
    before = (run / "suspects.csv").read_bytes()
    assert audit_command.main([*arguments, "--force"]) == 0
    assert (run / "suspects.csv").read_bytes() == before


def test_embeddings_with_a_test_set_are_read_by_the_other_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write_noisy(tmp_path, 0.2)
    run = tmp_path / "run"
    files = {"embeddings": "x.npy", "labels": "y.npy", "test-embeddings": "t.npy", "test-labels": "u.npy"}
    options = [part for name, file in files.items() for part in (f"--{name}", str(tmp_path / file))]
    assert audit_command.main([*options, "--out", str(run)]) == 0
    assert "estimated wrong labels" in capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    assert summary["kind"] == "audit" and summary["final_top1"] > 90
    assert summary["noise_interval"][0] <= wrong.mean() <= summary["noise_interval"][1]
    table = pq.read_table(run / "clean_probabilities.parquet")
    assert tuple(table.column_names) == CLEANING_COLUMNS and len(table) == 600
    suspected = ~np.array(table["is_clean"])
    assert (suspected & wrong).sum() > 0.9 * wrong.sum() and (suspected & ~wrong).sum() < 0.1 * wrong.sum()

    assert eval_command.main([str(run)]) == 0
    accuracy = json.loads((run / "eval_test_latest.json").read_text())
    assert accuracy["num_samples"] == 90 and accuracy["ensemble"]["top1"] == summary["final_top1"]
    labels = tmp_path / "cleaned.csv"
    assert clean_command.main([str(run), "--out", str(tmp_path / "s.csv"), "--cleaned-list", str(labels)]) == 0
    assert "The scores are out of sample" in capsys.readouterr().out
    assert (tmp_path / "s.csv").read_bytes() == (run / "suspects.csv").read_bytes()
    assert len(labels.read_text().splitlines()) == 601
    assert report_command.main([str(run), "--out", str(tmp_path / "r.html")]) == 0
    assert "audit of frozen embeddings, finished" in (tmp_path / "r.html").read_text()


def test_correct_labels_give_no_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_noisy(tmp_path, 0.0)
    options = ["--embeddings", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")]
    assert audit_command.main([*options, "--out", str(tmp_path / "run")]) == 0
    assert "no evidence of wrong labels" in capsys.readouterr().out
    assert "no evidence of wrong labels" in (tmp_path / "run" / "report.html").read_text()


def test_unusable_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_noisy(tmp_path, 0.2)
    values = np.load(tmp_path / "x.npy")
    values[5, 2] = np.nan
    np.save(tmp_path / "nan.npy", values)
    np.save(tmp_path / "few.npy", np.array([0, 1, 2]))
    labels = ["--labels", str(tmp_path / "y.npy"), "--out", str(tmp_path / "run")]
    for options, message in (
        (["--embeddings", str(tmp_path / "nan.npy"), *labels], "row 5 has NaN in column 2"),
        (["--embeddings", str(tmp_path / "y.npy"), *labels], "holds int64; embeddings are float16 or float32"),
        (["--embeddings", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "few.npy"), "--out", "r"], "3 labels"),
    ):
        assert audit_command.main(options) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_labels_from_1_are_the_classes_of_all_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_noisy(tmp_path, 0.1)
    for name in ("y", "u"):
        np.save(tmp_path / f"{name}.npy", np.load(tmp_path / f"{name}.npy") + 1)
    run = tmp_path / "run"
    files = [f"--{key}={tmp_path / name}.npy" for key, name in (("embeddings", "x"), ("labels", "y"))]
    files += [f"--test-embeddings={tmp_path / 't.npy'}", f"--test-labels={tmp_path / 'u.npy'}"]
    assert audit_command.main([*files, "--out", str(run)]) == 0
    assert "y.npy: labels count from 1: label 1 is class 0" in capsys.readouterr().err
    assert len(np.load(run / "pred_probs.npy")[0]) == CLASSES
    assert eval_command.main([str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "eval_test_latest.json").read_text())["ensemble"]["top1"] > 90
    assert clean_command.main([str(run), "--force", "--cleaned-list", str(tmp_path / "cleaned.csv")]) == 0
    labels = {row["label"] for row in rows_of(tmp_path / "cleaned.csv")}
    assert labels == {str(k + 1) for k in range(CLASSES)}, labels
    config = load_config([run / "config.yaml"], ["noise.kind=file", f"noise.file={tmp_path / 'cleaned.csv'}"])
    _, read = load_data(config)
    assert read.given.tolist() == [int(row["label"]) - 1 for row in rows_of(tmp_path / "cleaned.csv")]
