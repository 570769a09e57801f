"""Values behind the figures, tables and thumbnails of a report."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished_run import finished_run
from matplotlib.axes import Axes
from PIL import Image
from scipy.stats import ks_2samp, norm
from small_run import metrics

from fastcpc.engine.outputs.score_file import FIRST, LossMixture
from fastcpc.report.html.canvas import SERIES, draw, files
from fastcpc.report.html.class_figures import Pair, confusion, project, similarity, worst_pairs
from fastcpc.report.html.gallery import as_script
from fastcpc.report.html.headline import ClassNoise, accuracy_of, estimate_noise
from fastcpc.report.html.loss_figures import class_densities, loss_tests
from fastcpc.report.results.images import MOST_BYTES, SIDE, encode
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspects import find_suspects


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def test_estimated_noise_per_class(folder: Path) -> None:
    run = read_run(folder)
    samples = read_samples(run)
    given = np.array([0] * 4 + [1] * 2 + [2] * 234)
    clean = np.ones(240, np.bool_)
    clean[[0, 1, 2, 4, 10]] = False
    true = given.copy()
    true[[0, 5]] = 9
    predicted = np.where(np.arange(240) == 0, 9, given)
    samples = replace(samples, given_N=given, is_clean_N=clean, true_N=true, predicted_N=predicted)
    noise = estimate_noise(run, samples, find_suspects(run, samples))
    assert (noise.estimated, noise.actual) == (5 / 240, 2 / 240)
    assert noise.classes[0] == noise.noisiest == ClassNoise(0, 4, 0.75, 0.25, 1, 3)
    assert noise.classes[1] == ClassNoise(1, 2, 0.5, 0.5, 0, 2)
    assert noise.classes[2] == ClassNoise(2, 234, 1 / 234, 0.0, 0, 234)
    assert all(row.count == 0 and row.estimated is None for row in noise.classes[3:])
    true[6:] = -1
    partly = estimate_noise(run, replace(samples, true_N=true), find_suspects(run, samples))
    assert partly.actual == 2 / 6 and partly.classes[1].actual == 0.5 and partly.classes[2].actual is None
    unknown = replace(samples, true_N=None, is_clean_N=np.ones(240, np.bool_))
    noise = estimate_noise(run, unknown, find_suspects(run, unknown))
    assert (noise.estimated, noise.actual, noise.noisiest) == (0.0, None, None)


def test_accuracy_equals_the_metrics(folder: Path) -> None:
    run = read_run(folder)
    lines = tuple(
        {"epoch": number, "test_top1": value} for number, value in enumerate([10.0, *[50.0] * 5, 90.0, *[60.0] * 9])
    )
    accuracy = accuracy_of(replace(run, metrics=lines))
    assert accuracy is not None
    assert (accuracy.final, accuracy.best, accuracy.best_epoch, accuracy.epochs) == (60.0, 90.0, 6, 16)
    assert accuracy.last10 == 63.0
    assert accuracy_of(replace(run, metrics=())) is None


def test_confusion_and_most_frequent_changes() -> None:
    given, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2])
    counts = confusion(given, predicted, 3)
    assert counts.tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 1]]
    assert worst_pairs(counts) == [Pair(0, 1, 2, 2 / 3), Pair(1, 0, 1, 0.5)]
    assert worst_pairs(np.diag([3, 3])) == []


def test_mixture_densities_equal_scipy() -> None:
    mixture = LossMixture(np.array([0.1, 0.7]), np.array([0.01, 0.04]), np.array([0.6, 0.4]))
    grid = np.linspace(0, 1, 5)
    np.testing.assert_allclose(mixture.densities(grid)[0], 0.6 * norm.pdf(grid, 0.1, 0.1))
    np.testing.assert_allclose(mixture.densities(grid)[1], 0.4 * norm.pdf(grid, 0.7, 0.2))


def test_loss_tests_equal_scipy_and_the_metrics(folder: Path) -> None:
    run = read_run(folder)
    scores = run.scores(FIRST)
    assert scores is not None
    correct, wrong = loss_tests(run, scores)
    given, trusted = run.labels.given_N, run.labels.trusted_N
    assert trusted is not None
    loss = scores.arrays["loss"][0].astype(np.float64)
    rows = given == trusted
    expected = ks_2samp(loss[rows & (given == 3)], loss[rows], method="asymp").pvalue
    assert correct.p_values_K[3] == pytest.approx(expected)
    line = metrics(folder)[1]
    np.testing.assert_allclose(correct.p_values_K, line["ks_pvalue_clean"])
    np.testing.assert_allclose(wrong.p_values_K, line["ks_pvalue_noisy"])
    assert wrong.different == np.mean(np.array(line["ks_pvalue_noisy"]) < 0.05)


def test_class_densities_integrate_to_one() -> None:
    values, labels = np.array([0.1, 0.1, 0.9, 0.5]), np.array([0, 0, 2, 2])
    densities = class_densities(values, labels, 4, bins=5)
    np.testing.assert_allclose(densities, [[5, 0, 0, 0, 0], [0, 0, 2.5, 0, 2.5]])


def test_similarity_and_projection_by_value() -> None:
    cosines = similarity(np.array([[2.0, 0], [0, 3], [1, 1]]))
    np.testing.assert_allclose(cosines, [[1, 0, 0.5**0.5], [0, 1, 0.5**0.5], [0.5**0.5, 0.5**0.5, 1]], atol=1e-12)
    draws = np.random.default_rng(0).normal(size=(50, 2)) @ np.array([[5.0, 0, 0, 0], [0, 0, 1, 0]])
    points, explained = project(draws)
    assert explained == pytest.approx(1)
    distances = [np.linalg.norm(rows[:, None] - rows[None], axis=2) for rows in (points, draws)]
    np.testing.assert_allclose(*distances, atol=1e-9)


def test_thumbnail_of_a_large_image_is_below_the_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    url, tiny = encode(Image.fromarray(noise))
    data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    assert not tiny and len(data) <= MOST_BYTES and Image.open(io.BytesIO(data)).size == (SIDE, 120)
    thin, _ = encode(Image.new("RGB", (20_000, 3)))
    assert Image.open(io.BytesIO(base64.b64decode(thin.partition(",")[2]))).size == (SIDE, 1)


def test_json_in_a_script_element_cannot_end_it() -> None:
    row = "</script><script>alert(1)</script><!-- & \u2028 é"
    text = as_script({"columns": ["path"], "rows": [[row]]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["rows"] == [[row]]


def test_colours_of_pages_and_files() -> None:
    def plot(ax: Axes) -> None:
        ax.plot([1, 2], color=SERIES[0])

    before = draw("key", "title", "caption", "text", plot).svg
    svg, png = files(lambda sheet: plot(sheet.add_subplot()), width=1, height=1)
    after = draw("key", "title", "caption", "text", plot).svg
    assert before == after and "var(--s1)" in after and "currentColor" in after and "#0102" not in after
    assert "#2b6cb0" in svg and "var(" not in svg and "#0102" not in svg
    assert (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))[0, 0] == 255).all()
