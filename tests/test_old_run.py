"""Runs that an earlier version left: today's commands read them, and resume the one that was stopped.

tests/assets/old_run is a finished run of fastcpc 0.1.0, tests/assets/old_checkpoint the same run stopped in epoch 2.
Nobody makes them again: a change that cannot read them breaks the runs of users too.
"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from golden import TIMES, cpu_key
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from fastcpc.cli import clean, export, predict, report, train
from fastcpc.cli import eval as evaluate

ASSETS = Path(__file__).parent / "assets"
EXPECTED = json.loads((ASSETS / "old_run_expected.json").read_text())
SUMMARY = json.loads((ASSETS / "old_run" / "summary.json").read_text())
NEW = "training_flops"  # a key that the version of the stored runs did not write


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(ASSETS / "old_run", tmp_path / "old_run"))


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in (*TIMES, NEW)} for line in lines]


@pytest.mark.parametrize("checkpoint", ["latest", "best", "epoch_0007"])
def test_eval_measures_the_stored_accuracy(checkpoint: str, old_run: Path) -> None:
    assert evaluate.main([str(old_run), "--checkpoint", checkpoint, "--device", "cpu"]) == 0
    found = json.loads((old_run / f"eval_test_{checkpoint}.json").read_text())
    assert found["checkpoint"] == "epoch_0007"
    image = 100 / 360
    assert found["ensemble"]["top1"] == pytest.approx(SUMMARY["final_top1"], abs=2 * image)
    assert found["prototypes"]["top1"] == pytest.approx(metrics(old_run)[-1]["prototype_top1"], abs=2 * image)


def test_clean_finds_the_stored_suspects(old_run: Path) -> None:
    assert clean.main([str(old_run)]) == 0
    rows = table(old_run / "suspects.csv")
    assert len(rows) == EXPECTED["suspects"] == SUMMARY["suspected"]
    assert rows[0].keys() == EXPECTED["first_row"].keys()
    for key, value in EXPECTED["first_row"].items():
        exact = value if not key.startswith(("label_score", "clean_prob", "p_", "q_")) else None
        assert rows[0][key] == exact or float(rows[0][key]) == pytest.approx(float(value), rel=1e-6), key


def test_report_is_written(old_run: Path) -> None:
    assert report.main([str(old_run)]) == 0
    page = (old_run / "report.html").read_text(encoding="utf-8")
    assert f"{SUMMARY['final_top1']:.2f}" in page and f"{SUMMARY['suspected']}" in page


def test_run_and_export_predict_the_stored_labels(old_run: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    for number, pixels in enumerate(load_digits().images[: len(EXPECTED["predicted"])]):
        Image.fromarray((pixels * 15).astype(np.uint8)).save(tmp_path / "digits" / f"{number}.png")
    assert export.main([str(old_run)]) == 0
    for model in (old_run, old_run / "model"):
        out = tmp_path / f"{model.name}.csv"
        assert predict.main([str(model), str(tmp_path / "digits"), "--out", str(out), "--device", "cpu"]) == 0
        rows = table(out)
        assert [int(row["predicted_label"]) for row in rows] == [label for label, _ in EXPECTED["predicted"]]
        for row, (label, probability) in zip(rows, EXPECTED["predicted"], strict=True):
            assert float(row[f"p_{label}"]) == pytest.approx(probability, abs=1e-4)


def test_finished_run_is_not_trained_again(old_run: Path) -> None:
    before = {path.name: path.read_bytes() for path in old_run.iterdir() if path.suffix in (".json", ".jsonl", ".npz")}
    assert train.main(["--config", str(old_run / "config.yaml"), f"run.dir={old_run}"]) == 0
    assert before == {name: (old_run / name).read_bytes() for name in before}


def test_stopped_run_ends_like_the_whole_run(tmp_path: Path) -> None:
    """Bit-identical on the CPU and torch of the stored runs, within 6 points elsewhere."""
    whole, folder = ASSETS / "old_run", Path(shutil.copytree(ASSETS / "old_checkpoint", tmp_path / "run"))
    assert [line["epoch"] for line in metrics(folder)] == [0, 1]
    assert train.main(["--config", str(folder / "config.yaml"), f"run.dir={folder}"]) == 0
    assert "resumed from" in (folder / "train.log").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.pop(NEW) is None  # the FLOPs of the first epochs are unknown
    assert summary["finished"] is True and summary["epochs"] == SUMMARY["epochs"]
    assert summary.keys() == SUMMARY.keys()
    assert metrics(folder)[:2] == metrics(whole)[:2]
    assert [line.keys() for line in metrics(folder)] == [line.keys() for line in metrics(whole)]
    assert summary["final_top1"] == pytest.approx(SUMMARY["final_top1"], abs=6)
    if cpu_key() == EXPECTED["cpu_key"]:
        assert metrics(folder) == metrics(whole)
        assert {**summary, "seconds": 0} == {**SUMMARY, "seconds": 0}
        for name in ("net1.safetensors", "net2.safetensors"):
            one, two = (load_file(run / "checkpoints" / "epoch_0007" / name) for run in (folder, whole))
            assert one.keys() == two.keys() and all(one[key].equal(two[key]) for key in one)
        tables = [pq.read_table(run / "clean_probabilities.parquet").to_pydict() for run in (folder, whole)]
        assert tables[0] == tables[1]
        assert np.load(folder / "pred_probs.npy").tobytes() == np.load(whole / "pred_probs.npy").tobytes()
