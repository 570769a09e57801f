"""fastcpc-clean on real runs: tables, cleaned lists that train again, cleanlab on the files, errors."""

import csv
import io
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cleanlab
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import finished_run
from image_sets import imagefolder

from fastcpc.cli import clean as command
from fastcpc.config.load import load_config, to_yaml
from fastcpc.data.labels.noise import Labels, make_labels, take_subset
from fastcpc.data.registry import list_images, load_dataset
from fastcpc.engine.outputs.labels_file import write_labels
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspect_files import csv_bytes
from fastcpc.report.results.suspects import find_suspects

HOSTILE = [
    '=HYPERLINK("x")',
    "+1",
    "-1",
    "@x",
    "\t=1",
    'a "b", c',
    "new\nline",
    "<script>alert(1)</script>",
    "ä,ö",
    " x ",
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_suspects_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(tmp_path / "run")
    assert command.main([str(folder)]) == 0
    run = read_run(folder)
    samples = read_samples(run)
    suspects = find_suspects(run, samples)
    rows = rows_of(folder / "suspects.csv")
    assert [int(row["index"]) for row in rows] == samples.index_N[suspects.rows].tolist()
    assert {row["is_label_issue"] for row in rows} == {"true"}
    scores = [float(row["label_score"]) for row in rows]
    assert scores == sorted(scores) == samples.p_given_N[suspects.rows].tolist()
    quality = suspects.quality
    assert quality is not None and quality.precision is not None and quality.recall is not None
    text = capsys.readouterr().out
    assert f"{len(rows)} of 240 labels are suspected to be wrong (clean probability at most 0.5" in text
    assert f"precision {100 * quality.precision:.1f} %, recall {100 * quality.recall:.1f} %" in text
    assert "in-sample" in text and f"... {len(rows) - 10} more" in text


def test_suspects_that_training_could_not_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(tmp_path / "run")
    samples = read_samples(read_run(folder))
    rows = find_suspects(read_run(folder), samples).rows
    others = sorted(set(range(len(samples))) - set(rows.tolist()))
    bad = [samples.paths[row] for row in (rows[3], rows[1], others[0])]
    (folder / "bad_images.txt").write_text("".join(f"/data/{path}\tthe file is empty\n" for path in bad))
    assert command.main([str(folder)]) == 0
    assert (
        f"2 of the suspects could not be read in training (first {bad[1]}): their scores are of replacement images; "
        f"{folder / 'bad_images.txt'} has the reasons"
    ) in capsys.readouterr().out


def test_all_samples_as_parquet_with_another_threshold(tmp_path: Path) -> None:
    folder, out = finished_run(tmp_path / "run"), tmp_path / "all.parquet"
    assert command.main([str(folder), "--all", "--threshold", "1", "--out", str(out)]) == 0
    table = pq.read_table(out).to_pydict()
    assert sorted(table["index"]) == read_run(folder).labels.source_index_N.tolist()
    disagree = [a != b for a, b in zip(table["given_label"], table["predicted_label"], strict=True)]
    assert table["is_label_issue"] == disagree


def test_csv_is_safe_in_a_spreadsheet_and_reads_back(tmp_path: Path) -> None:
    table = pa.table({"index": list(range(len(HOSTILE))), "path": HOSTILE, "score": [0.1, -0.5, *[None] * 8]})
    text = csv_bytes(table).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[1].removeprefix("'") for row in rows[1:]] == HOSTILE
    assert not [row[1] for row in rows[1:] if row[1][0] in "=+-@\t\r"]
    assert [row[2] for row in rows[1:4]] == ["0.1", "-0.5", ""]  # numbers stay numbers


def test_cleanlab_reads_the_files(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    labels, probs = np.load(folder / "labels.npz")["given"], np.load(folder / "pred_probs.npy")
    issues = cleanlab.filter.find_label_issues(labels, probs, n_jobs=1)
    scores = cleanlab.rank.get_label_quality_scores(labels, probs, method="self_confidence")
    samples = read_samples(read_run(folder))
    np.testing.assert_allclose(scores, samples.p_given_N, rtol=1e-6)
    # cleanlab reads the same networks: none of its issues may agree with the given label
    assert issues.shape == (240,) and issues.any() and (samples.predicted_N != samples.given_N)[issues].all()


@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")  # cleanlab 2.9 with pandas 3.1
def test_the_cleanlab_example_of_the_docs_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(tmp_path / "run")
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "pred_probs" in block]
    assert len(blocks) == 2 and "Datalab" in blocks[1]
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("runs/mine", str(folder)), names)
    found = names["lab"].get_issues("label")
    samples = read_samples(read_run(folder))
    assert found["predicted_label"].tolist() == samples.predicted_N.tolist()
    np.testing.assert_allclose(found["label_score"], samples.p_given_N, rtol=1e-5)
    suspected = np.flatnonzero(found["is_label_issue"])
    assert 0 < len(suspected) <= len(names["issues"]) and set(suspected) <= set(names["issues"])
    assert f"{len(suspected)} issues found" in capsys.readouterr().out


def test_cleaned_digits_train_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, target = finished_run(tmp_path / "run"), tmp_path / "cleaned.csv"
    assert command.main([str(folder), "--cleaned-list", str(target)]) == 0
    assert f"noise.kind=file noise.file={target}" in capsys.readouterr().out
    run = read_run(folder)
    samples = read_samples(run)
    suspects = find_suspects(run, samples)
    config = load_config([folder / "config.yaml"], ["noise.kind=file", f"noise.file={target}", "noise.rate=0"])
    dataset = load_dataset(config.data)
    labels = make_labels(dataset, config.noise, config.run.seed)
    subset, kept = take_subset(dataset, labels, config.data.subset, config.run.seed)
    assert subset.train.names == samples.paths
    expected = np.where(suspects.is_issue_N, samples.predicted_N, samples.given_N)
    np.testing.assert_array_equal(kept.given, expected)
    before = make_labels(dataset, run.config.noise, run.config.run.seed).given
    outside = ~np.isin(dataset.train.source_index, samples.index_N)
    np.testing.assert_array_equal(labels.given[outside], before[outside])


def test_the_summary_counts_the_same_suspects(tmp_path: Path) -> None:
    run = read_run(finished_run(tmp_path / "run"))
    suspects = find_suspects(run, read_samples(run))
    assert run.summary is not None and suspects.quality is not None
    assert run.summary["suspected"] == len(suspects.rows)
    assert run.summary["suspected_precision"] == pytest.approx(suspects.quality.precision)
    assert run.summary["suspected_recall"] == pytest.approx(suspects.quality.recall)


def test_a_moved_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = imagefolder(tmp_path / "now", {"a": 3, "b": 3})
    settings = ["data.name=imagefolder", f"data.root={tmp_path / 'before'}", "data.holdout=0.3"]
    folder = finished_run(tmp_path / "run")
    (folder / "samples.parquet").unlink()  # of digits
    config = load_config([], [*settings, f"run.dir={folder}"])
    (folder / "config.yaml").write_text(to_yaml(config))
    split = list_images(replace(config.data, root=str(root))).splits["train"]
    labels = Labels(split.labels, None, "none", 0.0, None, 1)
    write_labels(folder / "labels.npz", labels, split.source_index, ("a", "b"))
    ones = np.ones(len(split))
    SampleTable(
        index_N=split.source_index, paths=tuple(split.names), given_N=split.labels, predicted_N=split.labels, q_N2={},
        clean_prob_N=ones, p_given_N=ones, p_predicted_N=ones, is_clean_N=ones > 0,
    ).write(folder / "clean_probabilities.parquet")  # fmt: skip
    for arguments, code in (([], 2), (["--root", str(root)], 0)):
        target = tmp_path / f"kept{code}.csv"
        assert command.main([str(folder), "--force", "--cleaned-list", str(target), *arguments]) == code
        assert target.exists() == (code == 0)
    assert "before: no such folder" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "kept0.csv")) == 6


def test_files_are_replaced_only_with_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = finished_run(tmp_path / "run"), tmp_path / "mine.csv"
    out.write_text("mine")
    assert command.main([str(folder), "--out", str(out)]) == 2
    assert "mine.csv exists already; give another name, or --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert command.main([str(folder), "--out", str(out), "--force"]) == 0
    assert out.read_text().startswith("index,path,")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.xlsx"], r"x\.xlsx: unknown kind of file; use \.csv or \.parquet"),
        (["--out", "no/x.csv"], r"no: no such folder, so x\.csv cannot be written there"),
        (["--out", "folder"], r"folder: unknown kind"),
        (["--cleaned-list", "folder"], r"folder is a folder that exists already"),
        (["--cleaned-list", "kept.txt"], r"kept\.txt: a label file of digits must end in \.csv"),
        (["--out", "a.csv", "--cleaned-list", "./a.csv"], r"--out and --cleaned-list are both a\.csv; give two names"),
        (["--threshold", "1.1"], r"argument --threshold: '1\.1' is not a number in \[0, 1\]"),
        (["--threshold", "nan"], r"'nan' is not a number in \[0, 1\]"),
    ],
)
def test_wrong_arguments_give_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    finished_run(Path("run"))
    os.mkdir("folder")
    assert command.main(["run", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^fastcpc-clean: error: .*{message}", lines[0]), lines


def test_a_run_without_a_cleaning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    assert command.main([str(folder)]) == 0
    assert "the run is not finished: this is its last cleaning" in capsys.readouterr().out
    (folder / "clean_probabilities.parquet").unlink()
    assert command.main([str(folder), "--force"]) == 2
    assert "has no clean_probabilities.parquet" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path / "run")
    (folder / "suspects.csv").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert command.main([str(folder), "--force"]) == 1
    assert "no space left on the device" in capsys.readouterr().err
    assert (folder / "suspects.csv").read_text() == "old"
