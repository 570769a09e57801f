"""The scores files of a run, against the run's own networks, losses and table."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import norm
from small_run import StopAfter, run, small_config

from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.launch import load_data
from fastcpc.engine.outputs.score_file import FIRST, LAST, MOST_EMBEDDINGS
from fastcpc.engine.step_loop import Stopped
from fastcpc.models.build import build_network
from fastcpc.models.network import Network


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def networks_of(config: Config) -> list[Network]:
    networks = [
        build_network(config.model, config.cpc, num_classes=10, in_channels=1, image_size=8, seed=0) for _ in "12"
    ]
    for network, state in zip(networks, load(find_checkpoint(Path(config.run.dir), "latest"))[0], strict=True):
        network.load_state_dict(state)
    return networks


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = small_config(tmp_path_factory.mktemp("scores") / "run")
    run(config)
    return config


def test_losses_belong_to_the_final_networks(finished: Config) -> None:
    scores = read(Path(finished.run.dir) / LAST)
    dataset, labels = load_data(finished)
    images = (dataset.train.pixels.float() / 255 - dataset.mean[0]) / dataset.std[0]  # type: ignore[union-attr]
    given_N = torch.from_numpy(labels.given)
    assert int(scores["epoch"]) == 4
    for loss_N, values_N, network in zip(scores["loss"], scores["values"], networks_of(finished), strict=True):
        with torch.no_grad():
            expected_N = torch.nn.functional.cross_entropy(network.eval()(images), given_N, reduction="none").numpy()
        np.testing.assert_allclose(loss_N, expected_N, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values_N, (loss_N - loss_N.min()) / (loss_N.max() - loss_N.min()), atol=1e-6)


def density(scores: dict[str, np.ndarray], name: str, network: int, place: int, values: np.ndarray) -> np.ndarray:
    """Both components' weighted densities, (2, M)."""
    parts = (scores[f"{name}_{part}"][network, place] for part in ("weights", "means", "variances"))
    return np.stack(
        [weight * norm.pdf(values, mean, variance**0.5) for weight, mean, variance in zip(*parts, strict=True)]
    )


def test_mixtures_are_fits_of_the_stored_losses(finished: Config) -> None:
    scores = read(Path(finished.run.dir) / FIRST)
    given = pq.read_table(Path(finished.run.dir) / "clean_probabilities.parquet")["given_label"].to_numpy()
    assert scores["agn_means"].shape == (2, 1, 2) and scores["awr_means"].shape == (2, 10, 2)
    for i in (0, 1):
        for name, place in (("agn", 0), *(("awr", k) for k in range(10))):
            rows = given == place if name == "awr" else np.full(len(given), True)
            values = scores["values"][i, rows].astype(np.float64)
            means, weights = scores[f"{name}_means"][i, place], scores[f"{name}_weights"][i, place]
            assert means[0] < means[1]
            # the last step of EM makes the mixture's mean that of its own samples
            np.testing.assert_allclose((weights * means).sum(), values.mean(), atol=1e-6)
            if name == "awr":  # the run's cleaner
                clean, noisy = density(scores, name, i, place, values)
                np.testing.assert_allclose(clean / (clean + noisy), scores["q_gmm"][i, rows], atol=1e-5)


def test_probabilities_equal_the_sample_table(finished: Config) -> None:
    folder = Path(finished.run.dir)
    scores, table = read(folder / LAST), pq.read_table(folder / "clean_probabilities.parquet")
    for name in ("q_gmm", "q_cpc"):
        for i in (0, 1):
            np.testing.assert_allclose(scores[name][i], table[f"{name}_{i + 1}"].to_numpy(), rtol=1e-6)


def test_embeddings_and_prototypes_reproduce_the_scores(finished: Config) -> None:
    folder = Path(finished.run.dir)
    scores, table = read(folder / LAST), pq.read_table(folder / "clean_probabilities.parquet")
    rows, given = scores["rows"], table["given_label"].to_numpy()
    assert rows.tolist() == list(range(240)) and MOST_EMBEDDINGS >= 240
    for i in (0, 1):
        similarity = (scores["embeddings"][i] * scores["prototypes"][i][given[rows]]).sum(1)
        np.testing.assert_allclose(1 / (1 + np.exp(-similarity)), scores["q_cpc"][i][rows], atol=1e-5)


def test_number_of_embeddings_is_limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fastcpc.engine.outputs.score_file.MOST_EMBEDDINGS", 50)
    run(small_config(tmp_path / "run", train={"epochs": 2}))
    scores = read(tmp_path / "run" / LAST)
    assert scores["embeddings"].shape == (2, 50, 16) and scores["prototypes"].shape == (2, 10, 16)
    assert scores["rows"][0] == 0 and scores["rows"][-1] == 239 and len(set(scores["rows"].tolist())) == 50


@pytest.mark.parametrize(
    ("kind", "present", "first"),
    [
        ("none", set(), False),
        ("gmm_agn", {"q_gmm"}, True),
        ("cpc_only", {"q_cpc", "rows", "embeddings", "prototypes"}, True),
    ],
)
def test_arrays_of_other_cleaners_are_left_out(kind: str, present: set[str], first: bool, tmp_path: Path) -> None:
    run(small_config(tmp_path / "run", kind, train={"epochs": 2}))
    optional = {"q_gmm", "q_cpc", "rows", "embeddings", "prototypes"}
    assert read(tmp_path / "run" / LAST).keys() & optional == present
    assert {"loss", "values", "agn_means", "awr_variances"} <= read(tmp_path / "run" / LAST).keys()
    assert (tmp_path / "run" / FIRST).exists() == first


def test_averaged_losses_are_stored_when_the_mixture_uses_them(tmp_path: Path) -> None:
    run(small_config(tmp_path / "run", "gmm_agn", cleaner={"loss_history": 3}))
    scores = read(tmp_path / "run" / LAST)
    now = (scores["loss"] - scores["loss"].min(1, keepdims=True)) / np.ptp(scores["loss"], axis=1, keepdims=True)
    assert np.abs(now - scores["values"]).max() > 0.01
    learner: Any = load(find_checkpoint(tmp_path / "run", "latest"))[1]["members"][
        0
    ]  # without the final cleaning's losses
    expected = (learner["history"][-2:].sum(0).numpy() + now[0]) / 3
    np.testing.assert_allclose(scores["values"][0], expected, atol=1e-5)


def test_stopped_run_has_the_scores_of_its_last_cleaning(tmp_path: Path) -> None:
    stop = StopAfter()
    run(small_config(tmp_path / "whole"), stop)
    config = small_config(tmp_path / "run")
    with pytest.raises(Stopped):
        run(config, StopAfter(stop.looks * 2 // 3))
    whole, part = read(tmp_path / "whole" / FIRST), read(tmp_path / "run" / FIRST)
    assert all((whole[name] == part[name]).all() for name in whole)
    assert int(read(tmp_path / "run" / LAST)["epoch"]) in (2, 3)
    assert pq.read_table(tmp_path / "run" / "clean_probabilities.parquet").num_rows == 240
