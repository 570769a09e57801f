"""The report of a run: that it stays small, and what it says of runs that lack something."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import finished_run
from PIL import Image
from scipy.stats import ks_2samp
from small_run import StopAfter, run, small_config

from fastcpc.cli import report as command
from fastcpc.engine.outputs.score_file import FIRST, LAST
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError
from fastcpc.report.html.headline import accuracy_of
from fastcpc.report.html.loss_figures import loss_tests
from fastcpc.report.html.page import run_page
from fastcpc.report.html.training_figures import run_figures
from fastcpc.report.results import images as run_images
from fastcpc.report.results.run import Run, read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspects import find_suspects

LIMIT = 10_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def page_of(folder: Path, **options: Any) -> str:
    return run_page(read_run(folder), **options)


def test_images_are_those_of_the_worst_labels(folder: Path) -> None:
    run = read_run(folder)
    suspects, images = find_suspects(run, samples := read_samples(run)), run_images.TrainingImages(run, samples)
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', run_page(run, most_cards=3))
    assert len(found) == 3
    for text, row in zip(found, suspects.rows, strict=False):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        np.testing.assert_array_equal(shown, np.asarray(images.image(int(row))))


def test_the_worst_page_is_below_ten_megabytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred classes of long names, and two hundred images that compress badly."""
    many_classes(folder, [f"{label:03d} " + "long name " * 30 for label in range(100)])
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (3, 400, 400), dtype=np.uint8)
    pixels = np.broadcast_to(noise, (240, 3, 400, 400))
    monkeypatch.setattr(run_images, "training_pixels", lambda *_: pixels)
    text = page_of(folder)
    assert text[: text.index('id="near-duplicates"')].count("data:image/jpeg") == 200
    assert text.count("Losses of the ") == 100
    assert 2_000_000 < len(text.encode()) < LIMIT


def many_classes(folder: Path, names: list[str]) -> None:
    """Rewrite a run's files as if there were more classes; every sample is suspected."""
    given = np.arange(240) % len(names)
    with np.load(folder / "labels.npz", allow_pickle=False) as stored:
        arrays = dict(stored) | {"class_names": np.array(names), "class_ids": np.array(names)}
    np.savez(folder / "labels.npz", **arrays | {"given": given, "trusted": (given + 1) % len(names)})
    table = pq.read_table(folder / "clean_probabilities.parquet").to_pydict()
    table |= {
        "given_label": given.tolist(),
        "is_clean": [False] * 240,
        "true_label": ((given + 1) % len(names)).tolist(),
    }
    table["predicted_label"] = table["true_label"]
    pq.write_table(pa.table(table), folder / "clean_probabilities.parquet")
    for name in (FIRST, LAST):
        with np.load(folder / name, allow_pickle=False) as stored:
            arrays = dict(stored)
        for part, value in (("means", [0.1, 0.7]), ("variances", [0.01, 0.02]), ("weights", [0.5, 0.5])):
            arrays[f"awr_{part}"] = np.tile(np.array(value), (2, len(names), 1))
        arrays["prototypes"] = np.random.default_rng(0).normal(size=(2, len(names), 16))
        np.savez(folder / name, **arrays)


def test_many_classes_have_tables_instead_of_matrices(folder: Path) -> None:
    many_classes(folder, [f"class {label}" for label in range(120)])
    text = page_of(folder)
    assert "120 classes are too many for a matrix" in text and "The first 100 of 120 classes." in text
    assert "Most frequent changes" in text


@pytest.mark.parametrize("kind", ["none", "gmm_agn", "cpc_only"])
def test_page_names_what_a_cleaner_lacks(kind: str, tmp_path: Path) -> None:
    text = page_of(finished_run(tmp_path / "run", kind))
    if kind != "cpc_only":
        assert f"cleaner.kind={kind} has no prototypes" in text and "figure-map" not in text
    assert ("figure-q" in text) is False
    assert ("figure-auc" in text) == (kind != "none")
    assert ("there is no AUC" in text) == (kind == "none")
    assert ("figure-hist-first" in text) == (kind != "none") and "figure-hist-last" in text


def test_page_without_true_labels(folder: Path) -> None:
    with np.load(folder / "labels.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "trusted"}
    np.savez(folder / "labels.npz", **arrays | {"actual_rate": np.array(np.nan)})
    table = pq.read_table(folder / "clean_probabilities.parquet").drop_columns(["true_label"])
    pq.write_table(table, folder / "clean_probabilities.parquet")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    known = [{key: value for key, value in line.items() if not key.startswith(("auc", "ks"))} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in known))
    text = page_of(folder)
    for absent in ("actual:", "true:", "figure-density", "figure-auc", "p-values", "correct labels", "wrong labels"):
        assert absent not in re.sub(r'<p class="note">.*?</p>', "", text), absent
    assert "True labels are unknown, so there is no AUC" in text and "figure-hist-last" in text


def test_page_with_some_true_labels(folder: Path) -> None:
    with np.load(folder / "labels.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    arrays["partly_trusted"] = np.where(np.arange(240) % 2, arrays.pop("trusted"), -1)
    np.savez(folder / "labels.npz", **arrays)
    run = read_run(folder)
    scores = run.scores(FIRST)
    assert scores is not None
    given, trusted, loss = run.labels.given_N, arrays["partly_trusted"], scores.arrays["loss"][0].astype(np.float64)
    wrong = (trusted >= 0) & (given != trusted)
    expected = ks_2samp(loss[wrong & (given == 3)], loss[wrong], method="asymp").pvalue
    assert loss_tests(run, scores)[1].p_values_K[3] == pytest.approx(expected)
    assert "figure-density-wrong" in page_of(folder)


def stopped(folder: Path, looks: int) -> Path:
    with pytest.raises(Stopped):
        run(small_config(folder), StopAfter(looks))
    return folder


def test_accuracy_over_flops_and_seconds_is_drawn(folder: Path) -> None:
    """The description of a figure names its last point. A run of an earlier version has no FLOPs."""
    run = read_run(folder)
    last, seconds = run.metrics[-1], sum(line["seconds"]["total"] for line in run.metrics)
    text = run_page(run)
    assert f"Accuracy over FLOPs: {last['test_top1']:.1f} % after {last['training_flops']:.3g} FLOPs." in text
    assert f"Accuracy over seconds: {last['test_top1']:.1f} % after {seconds:.3g} seconds." in text
    old = replace(run, metrics=tuple({k: v for k, v in line.items() if k != "training_flops"} for line in run.metrics))
    text = run_page(old)
    assert "This run has no count of FLOPs" in text and "Accuracy over FLOPs:" not in text
    assert "Accuracy over seconds:" in text


def test_page_of_an_unfinished_run(tmp_path: Path) -> None:
    text = page_of(stopped(tmp_path / "early", 3))
    assert "not finished: 0 of 4 epochs" in text and "no cleaning yet" in text
    assert "No epoch is finished yet" in text and "<li class=" not in text
    text = page_of(stopped(tmp_path / "later", 60))
    assert "not finished:" in text and '<li class="card"' in text
    assert "figure-accuracy" in text and "figure-hist-last" in text


def test_run_resumes_after_a_report(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "run", 60)
    assert command.main([str(folder)]) == 0
    assert (folder / "report.html").stat().st_size > 100_000
    assert run(small_config(folder))["finished"]


def test_training_figures_by_tag(folder: Path) -> None:
    figures = run_figures(folder)
    assert list(figures) == ["figures/losses", "figures/auc", "figures/confusion", "figures/suspects"]
    for pixels in figures.values():
        assert pixels.dtype == np.uint8 and (pixels[0, 0] == 255).all()
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 15


def test_missing_images_are_explained(folder: Path) -> None:
    table = pq.read_table(folder / "clean_probabilities.parquet").to_pydict()
    table["path"] = [f"elsewhere/{number}" for number in range(240)]
    pq.write_table(pa.table(table), folder / "clean_probabilities.parquet")
    text = page_of(folder)
    assert "No images: <bdi>the data set has no sample" in text
    assert text.count("no image</span>") == text.count('<li class="card"') > 20


@pytest.mark.parametrize("name", [LAST, FIRST])
def test_damaged_scores_are_an_error_in_one_line(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((folder / name).read_bytes())
    (folder / name).write_bytes(data[: len(data) // 2])
    assert command.main([str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"{name}: is damaged" in lines[0]
    (folder / name).unlink()
    assert command.main([str(folder)]) == 0


def test_scores_of_another_run_are_rejected(folder: Path, tmp_path: Path) -> None:
    run(small_config(tmp_path / "other", data={"subset": 200}, train={"epochs": 2}))
    shutil.copy(tmp_path / "other" / LAST, folder / LAST)
    with pytest.raises(
        InputError, match=r"scores_last\.npz: is damaged \(loss is float32 \(2, 200\), expected numbers"
    ):
        page_of(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: RUN"),
        (["nowhere"], "nowhere is not a folder"),
        (["run", "--most", "201"], r"--most 201: must be in 0\.\.200"),
        (["run", "--out", "."], r"--out \.: is a folder; give the name of a file"),
        (["run", "--out", "no/where.html"], r"--out no/where\.html: no such folder: no"),
        (["run", "--baseline", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_wrong_arguments_are_an_error_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    finished_run(Path("run"))
    assert command.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^fastcpc-report: error: .*{message}", lines[0]), lines
    assert not Path("run/report.html").exists()


def test_page_with_a_baseline(folder: Path, tmp_path: Path) -> None:
    other: Run = read_run(finished_run(tmp_path / "plain", "none"))
    one, two = accuracy_of(read_run(folder)), accuracy_of(other)
    assert one is not None and two is not None
    text = page_of(folder, baseline=other)
    assert f"{one.last10 - two.last10:+.2f} points compared with <bdi>plain</bdi> ({two.last10:.2f} %" in text
