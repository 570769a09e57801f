"""Reading a run's folder: finished, unfinished, damaged, missing."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import finished_run
from small_run import metrics, small_config
from small_run import run as train

from fastcpc.errors import InputError
from fastcpc.report.results.run import read_pred_probs, read_run
from fastcpc.report.results.samples import read_samples

TABLE = "clean_probabilities.parquet"


def test_a_finished_run_by_value(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    run = read_run(folder)
    samples = read_samples(run)
    stored = pq.read_table(folder / TABLE).to_pydict()
    assert run.summary == json.loads((folder / "summary.json").read_text())
    assert [line["epoch"] for line in run.metrics] == [line["epoch"] for line in metrics(folder)] == [0, 1, 2, 3]
    assert run.class_names == tuple("0123456789") and run.num_samples == len(samples) == 240
    assert (run.labels.noise_kind, run.labels.nominal_rate, run.labels.seed) == ("sym", 0.4, 3)
    assert run.labels.actual_rate == pytest.approx(np.mean(run.labels.given_N != run.labels.trusted_N))
    assert samples.paths == tuple(stored["path"]) and samples.paths[0].startswith("train/")
    for values, name in (
        (samples.index_N, "index"), (samples.given_N, "given_label"), (samples.predicted_N, "predicted_label"),
        (samples.clean_prob_N, "clean_probability"), (samples.is_clean_N, "is_clean"), (samples.p_given_N, "p_given"),
        (samples.p_predicted_N, "p_predicted"), (samples.true_N, "true_label"),
    ):  # fmt: skip
        assert values is not None and values.tolist() == stored[name], name
    assert list(samples.q_N2) == ["gmm", "cpc"]
    assert samples.q_N2["gmm"][:, 1].tolist() == stored["q_gmm_2"]
    assert samples.q_N2["cpc"][:, 0].tolist() == stored["q_cpc_1"]


def test_pred_probs_are_the_mean_softmax_of_the_scoring_pass(tmp_path: Path) -> None:
    run = read_run(finished_run(tmp_path / "run"))
    samples, probs_NK = read_samples(run), read_pred_probs(run)
    assert probs_NK.shape == (240, 10) and probs_NK.dtype == np.float32
    np.testing.assert_allclose(probs_NK.sum(1), 1, rtol=1e-5)
    rows = np.arange(240)
    np.testing.assert_array_equal(probs_NK[rows, samples.given_N], samples.p_given_N.astype(np.float32))
    np.testing.assert_array_equal(probs_NK[rows, samples.predicted_N], samples.p_predicted_N.astype(np.float32))
    np.testing.assert_array_equal(probs_NK.argmax(1), samples.predicted_N)


def epoch_line(pair: str) -> Callable[[Path], None]:
    """A line of metrics with this pair."""
    return lambda run: (run / "metrics.jsonl").write_text(f'{{"epoch": 0, {pair}}}\n') and None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path: path.unlink(),
            r"has no pred_probs.npy: it is written when the run ends, and this one has done 4",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), r"pred_probs.npy: .*; delete summary.json there"),
        (lambda path: np.save(path, np.zeros((240, 9), np.float32)), r"does not hold float32 \(240, 10\), a row per"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), r"pred_probs.npy: .*; delete summary.json"),
    ],
)
def test_damaged_pred_probs(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    run = read_run(finished_run(tmp_path / "run"))
    spoil(run.path / "pred_probs.npy")
    with pytest.raises(InputError, match=message) as caught:
        read_pred_probs(run)
    assert "\n" not in str(caught.value)


def test_true_labels_of_a_part_of_the_samples(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    with np.load(folder / "labels.npz") as file:
        arrays = {name: file[name] for name in file.files}
    partly = np.where(np.arange(240) % 2, arrays.pop("trusted"), -1)
    np.savez(folder / "labels.npz", **arrays, partly_trusted=partly)
    np.testing.assert_array_equal(read_samples(read_run(folder)).true_N, partly)


def test_a_run_without_cleaner_has_no_cleaner_columns(tmp_path: Path) -> None:
    samples = read_samples(read_run(finished_run(tmp_path / "run", "none")))
    assert not samples.q_N2
    np.testing.assert_array_equal(samples.clean_prob_N, samples.p_given_N)


def test_unfinished_run_without_a_cleaning(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    (folder / TABLE).unlink()
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    run = read_run(folder)
    assert run.summary is None and len(run.metrics) == 2
    with pytest.raises(InputError, match=r"run has no clean_probabilities.parquet: .* done 2 of 4 epochs; repeat the"):
        read_samples(run)
    (folder / "metrics.jsonl").unlink()
    assert read_run(folder).metrics == ()


def rewrite(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """A change of the table of clean probabilities."""
    return lambda run: pq.write_table(change(pq.read_table(run / TABLE)), run / TABLE)


def column(name: str, value: float) -> Callable[[pa.Table], pa.Table]:
    """The table with another first value in a column."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        position = table.column_names.index(name)
        return table.set_column(position, name, pa.array([value, *values[1:]], table[name].type))

    return change


def spoil_labels(run: Path, **arrays: object) -> None:
    with np.load(run / "labels.npz") as file:
        kept = {name: file[name] for name in file.files}
    np.savez(run / "labels.npz", **(kept | arrays))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), r"run is not a run's folder: it has no config.yaml"),
        (lambda run: (run / "labels.npz").unlink(), r"run has no labels.npz: this run ended before training"),
        (lambda run: (run / "labels.npz").write_bytes(b"PK\3\4 no"), r"labels.npz: .*; delete summary.json there and"),
        (lambda run: spoil_labels(run, class_names=np.array(["a"])), r"labels.npz: given does not hold a label of 1 c"),
        (lambda run: spoil_labels(run, given=np.zeros(3, int)), r"labels.npz: given does not hold .* each sample"),
        (lambda run: (run / "metrics.jsonl").write_text("{}\n"), r"line 1 is not the object of an epoch"),
        (lambda run: (run / "metrics.jsonl").write_text("[3]\n"), r"line 1 is not the object of an epoch"),
        (epoch_line('"test_top1": "x"'), r"line 1 is not the object of an epoch \(damaged\); delete this line"),
        (epoch_line('"auc_gmm": 0.5'), r"line 1 is not the object of an epoch"),
        (epoch_line('"seconds": 3'), r"line 1 is not the object of an epoch"),
        (lambda run: (run / "summary.json").write_text('{"finished": true}'), r"summary.json: is damaged; delete it"),
        (lambda run: (run / "summary.json").write_text("{"), r"summary.json: is damaged; delete it and repeat"),
        (lambda run: (run / TABLE).write_bytes(b"PAR1"), r"parquet: not a Parquet file that can be read"),
        (rewrite(lambda table: table.drop_columns(["p_given"])), r"parquet: no column p_given; delete summary.json"),
        (rewrite(lambda table: table.slice(1)), r"parquet: its rows are not the samples of labels.npz"),
        (rewrite(column("given_label", 11)), r"parquet: its given labels are not those of labels.npz"),
        (rewrite(column("predicted_label", 10)), r"parquet: column predicted_label has labels outside 0..9"),
        (lambda run: spoil_labels(run, trusted=np.full(240, 10)), r"labels.npz: trusted does not hold a label of 10"),
        (rewrite(column("p_given", float("nan"))), r"parquet: column p_given has values outside \[0, 1\]"),
        (rewrite(column("clean_probability", 1.5)), r"parquet: column clean_probability has values outside"),
        (rewrite(column("is_clean", None)), r"parquet: column is_clean has empty rows"),  # type: ignore[arg-type]
    ],
)
def test_damaged_runs_are_an_error_in_one_line(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = finished_run(tmp_path / "run")
    spoil(folder)
    with pytest.raises(InputError) as caught:
        read_samples(read_run(folder))
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value), str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is not a folder; give the folder of a run"):
        read_run(tmp_path / "nothing")


def test_advice_for_a_damaged_table_works(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    whole = (folder / TABLE).read_bytes()
    config = small_config(folder)
    (folder / TABLE).write_bytes(b"damaged")
    (folder / "summary.json").unlink()
    train(config)
    assert (folder / TABLE).read_bytes() == whole
