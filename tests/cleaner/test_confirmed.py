"""Confirmed labels in each cleaner: probability 1, and no influence on how the other labels are judged."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import small_config
from torch import Tensor

from fastcpc.cleaner.confirmed import always_labelled
from fastcpc.cleaner.confusion import fit_confusion
from fastcpc.cleaner.gmm import agnostic_posterior, aware_posterior
from fastcpc.cleaner.partition import Partition
from fastcpc.distributed import whole_shard
from fastcpc.engine.cleaning import clean_labels
from fastcpc.engine.learner import Learner
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.scoring import SampleScores, ScoringResult

CPU = Numerics(torch.device("cpu"), torch.float32)
NUM, CLASSES = 120, 10
CONFIRMED = torch.arange(NUM) % 7 == 0


def losses() -> Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.where(torch.arange(NUM) % 3 == 0, 0.5, 0.1) + 0.4 * torch.rand(NUM, generator=draws)


def test_mixtures_are_those_of_the_other_samples() -> None:
    values, labels, rest = losses(), torch.arange(NUM) % 2, ~CONFIRMED
    moved = torch.where(CONFIRMED, 1 - values, values)  # confirmed losses do not matter
    for one in (values, moved):
        agnostic = agnostic_posterior(one, confirmed_N=CONFIRMED)
        assert not torch.equal(agnostic.clean_prob_N, agnostic_posterior(one).clean_prob_N)
        assert torch.equal(agnostic.clean_prob_N[rest], agnostic_posterior(values[rest]).clean_prob_N)
        assert agnostic.fits["agn"].means.shape == (1, 2)
        aware = aware_posterior(one, labels, 2, confirmed_N=CONFIRMED)
        assert torch.equal(aware.clean_prob_N[rest], aware_posterior(values[rest], labels[rest], 2).clean_prob_N)
        assert aware.fits["awr"].means.shape == (2, 2)


def test_a_class_of_confirmed_samples_needs_no_mixture() -> None:
    labels = torch.where(CONFIRMED, 1, 0)
    posterior = aware_posterior(losses(), labels, 2, confirmed_N=CONFIRMED)
    assert posterior.fallback_classes == () and bool(posterior.clean_prob_N[~CONFIRMED].isfinite().all())


def scoring(learners: list[Learner], labels: Tensor) -> ScoringResult:
    draws = torch.Generator().manual_seed(0)
    scores = []
    for _ in learners:
        loss = losses() * 3
        feat = torch.randn(NUM, learners[0].network.feature_dim, generator=draws)
        scores.append(SampleScores(loss, (labels + 1) % CLASSES, (-loss).exp(), torch.full((NUM,), 0.9), feat))
    return ScoringResult(tuple(scores), scores[0], whole_shard(NUM))


@pytest.mark.parametrize("guard", ["none", "auto"])
@pytest.mark.parametrize("kind", ["gmm_agn", "gmm_awr", "cpc_agn", "cpc_only", "confusion", "cpc_confusion"])
def test_confirmed_labels_are_clean_in_every_cleaner(kind: str, guard: str) -> None:
    cleaner = {"warmup": 0.0, "guard": guard}
    config = small_config(Path("unused"), kind, train={"epochs": 10, "warmup_epochs": 1}, cleaner=cleaner)
    learners = [
        Learner(number, config, CPU, num_classes=CLASSES, in_channels=1, image_size=8, num_samples=NUM)
        for number in (1, 2)
    ]
    labels = torch.arange(NUM) % CLASSES
    result = clean_labels(
        learners, scoring(learners, labels), labels, config, num_classes=CLASSES, epoch=5, confirmed_N=CONFIRMED
    )
    for both in result.clean_probs.values():
        for probs in both:
            assert bool((probs[CONFIRMED] == 1).all()) and not bool((probs[~CONFIRMED] == 1).all())
    for learner in learners:
        assert learner.partition is not None
        assert bool(learner.partition.clean_N[CONFIRMED].all()) and not bool(learner.partition.clean_N.all())
        assert bool((learner.partition.clean_prob_N[CONFIRMED] == 1).all())


def test_a_pool_has_all_confirmed_labels_in_the_labelled_set() -> None:
    """Confirmed samples that were not scored are in X, too; other unscored samples are in neither set."""
    config = small_config(Path("unused"), "gmm_agn", cleaner={"scored": "pool"}, train={"pool_batches": 2})
    learners = [
        Learner(number, config, CPU, num_classes=CLASSES, in_channels=1, image_size=8, num_samples=2 * NUM)
        for number in (1, 2)
    ]
    labels, rows = torch.arange(2 * NUM) % CLASSES, torch.arange(NUM) * 2
    confirmed = torch.zeros(2 * NUM, dtype=torch.bool)
    confirmed[[0, 1, 4, 5]] = True
    scored = replace(scoring(learners, labels[rows]), rows=rows)
    clean_labels(learners, scored, labels, config, num_classes=CLASSES, epoch=3, confirmed_N=confirmed)
    partition = learners[0].partition
    assert partition is not None and partition.clean_N[[0, 1, 4, 5]].all()
    assert partition.clean_prob_N[[1, 5]].tolist() == [1, 1]
    assert partition.clean_prob_N[[3, 7]].isnan().all() and not partition.clean_N[[3, 7]].any()


def test_the_confusion_matrix_is_of_the_other_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(prob_NK: Tensor, labels_N: Tensor, **settings: object) -> object:
        seen.append(len(labels_N))
        assert len(prob_NK) == len(labels_N)
        return fit_confusion(prob_NK, labels_N, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("fastcpc.cleaner.confusion.fit_confusion", spy)
    test_confirmed_labels_are_clean_in_every_cleaner("confusion", "none")
    assert seen == [int((~CONFIRMED).sum())] * 2


def test_always_labelled_keeps_the_other_samples() -> None:
    partition = Partition(torch.tensor([True, False, False]), torch.tensor([0.9, 0.2, torch.nan]))
    kept = always_labelled(partition, torch.tensor([False, False, True]))
    assert kept.clean_N.tolist() == [True, False, True]
    assert kept.clean_prob_N.tolist() == pytest.approx([0.9, 0.2, 1.0])
