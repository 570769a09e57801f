"""Similar images by value: nearest samples against brute force, groups, and near duplicates with different labels."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from finished_run import change_predictions, finished_run
from PIL import Image

from fastcpc.cli import clean
from fastcpc.engine.outputs.pred_probs import DIMS, project
from fastcpc.errors import InputError
from fastcpc.report.html.page import run_page
from fastcpc.report.results import similar_images
from fastcpc.report.results.images import TrainingImages
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.similar_images import nearest, similar_groups, unit_features
from fastcpc.report.results.suspects import find_suspects


def unit(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def test_nearest_samples_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar_images, "BLOCK", 7)
    values = unit(np.random.default_rng(0).standard_normal((50, 6)))
    rows = np.array([3, 49, 7, 6])
    others, cosines = nearest(values, rows, 4)
    whole = values[rows] @ values.T
    whole[np.arange(4), rows] = -np.inf
    expected = np.argsort(-whole, axis=1)[:, :4]
    assert others.tolist() == expected.tolist()
    np.testing.assert_allclose(cosines, np.take_along_axis(whole, expected, 1), atol=1e-6)
    few, none = nearest(values[:3], np.array([1]), 4)
    assert set(few[0, :2].tolist()) == {0, 2} and few[0, 2:].tolist() == [-1, -1] and np.isinf(none[0, 2:]).all()


def test_groups_are_around_their_first_image() -> None:
    angles = np.radians([0, 10, 90, 20, 35, 95])  # 35 is near 20, and not near 0
    assert similar_groups(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)).tolist() == [
        0,
        0,
        1,
        0,
        2,
        1,
    ]


def test_a_projection_keeps_high_cosines() -> None:
    draws = np.random.default_rng(1)
    one = unit(draws.standard_normal((200, 1280)))
    close, far = unit(one + 0.3 * unit(draws.standard_normal((200, 1280)))), unit(draws.standard_normal((200, 1280)))
    assert project(one).shape == (200, DIMS)
    cosines = [(unit(project(one)) * unit(project(other))).sum(1) for other in (close, far)]
    assert cosines[0].min() > 0.9 and np.abs(cosines[1]).max() < 0.5
    assert project(one[:, :DIMS]) is not None and np.array_equal(project(one[:, :20]), one[:, :20])


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, int, int]:
    """A run, two samples with different labels and the same feature, and a third with the feature, but other pixels."""
    folder = finished_run(tmp_path / "run")
    change_predictions(folder)
    run = read_run(folder)
    samples = read_samples(run)
    worst = find_suspects(run, samples).rows.tolist()
    other = next(row for row in worst[1:] if samples.given_N[row] != samples.given_N[worst[0]])
    third = next(
        row for row in worst if samples.given_N[row] not in (samples.given_N[worst[0]], samples.given_N[other])
    )
    features = np.random.default_rng(0).standard_normal((len(samples), DIMS)).astype(np.float16)
    features[other] = features[third] = features[worst[0]]
    np.save(folder / "features.npy", features)
    return folder, worst[0], other


def test_near_duplicates_with_different_labels(
    twins: tuple[Path, int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, one, other = twins
    samples = read_samples(read_run(folder))
    drawn = np.random.default_rng(0).integers(0, 255, (9, 9), np.uint8)

    def image(self: object, row: int) -> Image.Image:
        noise = np.random.default_rng(row).integers(0, 255, (9, 9), np.uint8)
        return Image.fromarray(drawn if row in (one, other) else noise)

    monkeypatch.setattr(TrainingImages, "image", image)
    target = tmp_path / "pairs.csv"
    assert clean.main([str(folder), "--near-duplicates", str(target)]) == 0
    assert "1 pairs of near duplicates with different labels written to" in capsys.readouterr().out
    with target.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["other_path"]) == (samples.paths[one], samples.paths[other])
    assert int(row["given_label"]) == samples.given_N[one] and int(row["other_given_label"]) == samples.given_N[other]
    assert float(row["cosine"]) > 0.999 and float(row["pixel_correlation"]) > 0.999
    text = run_page(read_run(folder))
    section = text[text.index('id="near-duplicates"') :]
    assert "1 pair of a suspect" in section and section.count(samples.paths[other]) >= 2
    assert '<option value="similar">' in text


def test_a_run_without_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(tmp_path / "run")
    samples = read_samples(read_run(folder))
    stored = np.load(folder / "features.npy")
    assert stored.dtype == np.float16 and len(stored) == len(samples)
    unit_ND, _ = unit_features(read_run(folder), samples)
    assert unit_ND is not None
    np.testing.assert_allclose(np.linalg.norm(unit_ND, axis=1), 1, atol=1e-5)
    (folder / "features.npy").unlink()
    assert '<option value="similar">' not in run_page(read_run(folder))
    assert clean.main([str(folder), "--near-duplicates", str(tmp_path / "p.csv")]) == 2
    assert "this run has no features.npy" in capsys.readouterr().err.lower()
    np.save(folder / "features.npy", stored[:3])
    with pytest.raises(InputError, match=r"features\.npy: does not have one row per sample"):
        run_page(read_run(folder))


def test_features_are_those_of_network_1(tmp_path: Path) -> None:
    """Equal images have equal rows, and a class is closer to itself than to others."""
    folder = finished_run(tmp_path / "run")
    table = pq.read_table(folder / "clean_probabilities.parquet")
    true = table["true_label"].to_numpy()
    unit_ND, _ = unit_features(read_run(folder), read_samples(read_run(folder)))
    assert unit_ND is not None
    cosine = unit_ND @ unit_ND.T
    same = true[:, None] == true
    np.fill_diagonal(same, False)
    assert cosine[same].mean() > cosine[true[:, None] != true].mean() + 0.1
