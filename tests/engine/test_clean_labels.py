"""Stage 1 by value: whose losses divide whose data, who teaches whose prototypes, and which score counts."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_config

from fastcpc.cleaner import prototypes
from fastcpc.cleaner.confusion import TRAINED_SHARPNESS, fit_confusion
from fastcpc.cleaner.gmm import aware_posterior
from fastcpc.cleaner.guard import noise_bound
from fastcpc.cleaner.loss_history import min_max
from fastcpc.cleaner.prototypes import prototype_clean_prob
from fastcpc.config.schema import Config
from fastcpc.distributed import whole_shard
from fastcpc.engine.cleaning import clean_labels
from fastcpc.engine.learner import Learner
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.scoring import SampleScores, ScoringResult
from fastcpc.models.network import Network

CPU = Numerics(torch.device("cpu"), torch.float32)
NUM = 120


def config_of(kind: str, **sections: Any) -> Config:
    config = small_config(Path("unused"), kind, train={"epochs": 10, "warmup_epochs": 1}, cleaner={"warmup": 0.0})
    for name, changes in sections.items():
        config = replace(config, **{name: replace(getattr(config, name), **changes)})
    return config


def members_of(config: Config) -> list[Learner]:
    return [
        Learner(number, config, CPU, num_classes=10, in_channels=1, image_size=8, num_samples=NUM) for number in (1, 2)
    ]


def scores_of(learners: list[Learner]) -> tuple[ScoringResult, torch.Tensor]:
    """Losses that differ between the networks: network 1 finds the first half clean, network 2 the even samples."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(NUM) % 10
    rows = torch.arange(NUM)
    scores = []
    for clean in (rows < NUM // 2, (rows // 10) % 2 == 0):
        loss = torch.where(clean, 0.2, 2.0) + 0.1 * torch.rand(NUM, generator=draws)
        feat = torch.randn(NUM, learners[0].network.feature_dim, generator=draws)
        predicted = torch.where(clean, labels, (labels + 1) % 10)
        scores.append(SampleScores(loss, predicted, (-loss).exp(), torch.full((NUM,), 0.9), feat))
    return ScoringResult(tuple(scores), scores[0], whole_shard(NUM)), labels


def test_mixture_of_one_network_partitions_for_the_other() -> None:
    config = config_of("gmm_awr")
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    result = clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)
    for learner, other, partition in zip(learners, (1, 0), result.partition_for, strict=True):
        loss = scoring.networks[other].loss_N
        assert learner.partition is partition
        assert torch.equal(partition.clean_N, loss < 1)
        expected = aware_posterior(min_max(loss), labels, 10).clean_prob_N
        assert torch.equal(partition.clean_prob_N, expected)
    assert torch.equal(result.clean_probs["gmm"][0], result.partition_for[1].clean_prob_N)
    assert torch.equal(result.clean_prob_of_network[0], result.clean_probs["gmm"][0])


def test_prototypes_train_on_own_features_and_the_other_mixture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = config_of("cpc_awr", cleaner={"alpha": 0.5})
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    calls = []

    def spy(
        network: Any, optimizer: Any, feat: Any, labels_N: Any, clean: Any, pseudo: Any, cpc: Any, **rest: Any
    ) -> None:
        calls.append((network, feat, clean, pseudo, rest["alpha"], rest["seed"]))

    monkeypatch.setattr(prototypes, "train_prototypes", spy)
    clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)
    assert len(calls) == 2 and calls[0][5] != calls[1][5]
    for (network, feat, clean, pseudo, alpha, _), learner, own, other in zip(
        calls, learners, scoring.networks, reversed(scoring.networks), strict=True
    ):
        assert network is learner.network
        assert feat is own.feat_ND
        assert alpha == 0.5
        assert torch.equal(clean, other.loss_N < 1)
        # own confident prediction, on the samples that the other's mixture holds noisy: all of them are above the mean
        assert torch.equal(pseudo, torch.where(other.loss_N < 1, -1, own.predicted_N))


@pytest.mark.parametrize("score", ["after_update", "before_update"])
def test_training_set_is_scored_before_and_after_prototype_training(score: str) -> None:
    config = config_of("cpc_awr", cpc={"score": score})
    learners, untouched = members_of(config), members_of(config)
    scoring, labels = scores_of(learners)
    result = clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)
    for i in (0, 1):
        feat = scoring.networks[i].feat_ND
        before = prototype_clean_prob(untouched[i].network, feat, labels)
        after = prototype_clean_prob(learners[i].network, feat, labels)
        assert not torch.equal(before, after)
        assert torch.equal(result.clean_probs["cpc"][i], before if score == "before_update" else after)
        assert torch.equal(result.partition_for[1 - i].clean_prob_N, result.clean_probs["cpc"][i])


def test_mixture_is_active_during_cleaner_warmup() -> None:
    config = config_of("cpc_awr", cleaner={"warmup": 0.5})
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    before = learners[0].network.prototype_matrix().detach().clone()
    result = clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)
    assert torch.equal(result.partition_for[0].clean_prob_N, result.clean_probs["gmm"][1])
    assert not torch.equal(before, learners[0].network.prototype_matrix())


def test_mixtures_use_the_mean_loss_of_recent_epochs() -> None:
    config = config_of("gmm_agn", cleaner={"loss_history": 3})
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    losses = scoring.networks[0].loss_N
    seen = []
    for shift in (0, 1, 2, 3):
        moved = replace(scoring.networks[0], loss_N=losses.roll(shift))
        clean_labels(
            learners, ScoringResult((moved, moved), moved, whole_shard(NUM)), labels, config, num_classes=10, epoch=5
        )
        seen.append(min_max(losses.roll(shift)))
    assert torch.equal(learners[0].history_LN, torch.stack(seen[1:]))


def test_mixture_without_a_fit_keeps_prototypes_and_partition() -> None:
    config = config_of("cpc_agn")
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    flat = replace(scoring.networks[1], loss_N=torch.ones(NUM))  # network 2's mixture divides network 1's data
    before = [learner.network.prototype_matrix().detach().clone() for learner in learners]
    result = clean_labels(
        learners,
        ScoringResult((scoring.networks[0], flat), flat, whole_shard(NUM)),
        labels,
        config,
        num_classes=10,
        epoch=5,
    )
    assert torch.equal(before[0], learners[0].network.prototype_matrix())
    assert not torch.equal(before[1], learners[1].network.prototype_matrix())
    assert (
        "network 1: the losses are all equal, so that no mixture can be fitted; its prototypes stay" in result.notes[0]
    )


@pytest.mark.parametrize("kind", ["gmm_agn", "gmm_awr", "cpc_awr"])
def test_guard_keeps_labels_that_the_network_predicts(kind: str) -> None:
    """With one group of losses a mixture rejects a part of every class; the guard rejects only other predictions."""
    results = {}
    for guard in ("none", "auto"):
        config = config_of(kind, cleaner={"guard": guard, "tau": 0.7})
        learners = members_of(config)
        scoring, labels = scores_of(learners)
        one_group = 0.01 + 0.05 * torch.rand(NUM, generator=torch.Generator().manual_seed(1))
        predicted = torch.where(torch.arange(NUM) % 40 == 0, (labels + 1) % 10, labels)
        networks = tuple(
            replace(one, loss_N=one_group, predicted_N=predicted, prob_given_N=(-one_group).exp())
            for one in scoring.networks
        )
        result = clean_labels(learners, replace(scoring, networks=networks), labels, config, num_classes=10, epoch=5)
        results[guard] = result
        for partition in result.partition_for:
            rejected = ~partition.clean_N
            if guard == "none":
                assert 0.1 < rejected.float().mean() < 0.9
            else:
                assert not bool((rejected & (predicted == labels)).any())
    plain, guarded = (results[guard].clean_probs["gmm"][0] for guard in ("none", "auto"))
    agrees = predicted == labels
    assert torch.equal(guarded[~agrees], plain[~agrees])
    torch.testing.assert_close(guarded[agrees], torch.maximum(plain, 0.7 + 0.3 * (-one_group).exp())[agrees])


def test_guard_leaves_rejected_labels_of_other_predictions() -> None:
    config = config_of("gmm_awr", cleaner={"guard": "auto"})
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    result = clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)
    for other, partition in zip((1, 0), result.partition_for, strict=True):
        assert torch.equal(partition.clean_N, scoring.networks[other].loss_N < 1)


def test_bound_of_the_guard_is_that_of_the_first_cleaning() -> None:
    """Later the networks know the labels. Then no confident sample contradicts its label, and the bound would be 0.
    Network 2 knows them from the start. So the bound is that of network 1, the larger one."""
    config = config_of("gmm_awr", cleaner={"guard": "auto"})
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    one = scoring.networks[0]
    scoring = replace(scoring, networks=(one, replace(one, predicted_N=labels)))
    clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)
    first = [learner.noise_bound for learner in learners]
    assert first == [noise_bound(one.predicted_N, one.prob_predicted_N, labels, 10)] * 2
    known = tuple(replace(one, predicted_N=labels) for one in scoring.networks)
    clean_labels(learners, replace(scoring, networks=known), labels, config, num_classes=10, epoch=6)
    for learner, bound in zip(learners, first, strict=True):
        assert bound is not None and 0.4 < bound < 0.7
        assert learner.noise_bound is bound


def test_guard_rejects_at_most_the_bound_where_confident_samples_agree() -> None:
    """Half of the labels have a high loss, and the network predicts another class there, but without confidence."""
    config = config_of("gmm_awr", cleaner={"guard": "auto"})
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    unsure = tuple(
        replace(one, prob_predicted_N=torch.where(one.predicted_N == labels, 0.9, 0.3)) for one in scoring.networks
    )
    result = clean_labels(learners, replace(scoring, networks=unsure), labels, config, num_classes=10, epoch=5)
    for other, partition in zip((1, 0), result.partition_for, strict=True):
        bound = learners[other].noise_bound
        assert bound is not None and 0 < bound < 0.15
        assert int((~partition.clean_N).sum()) == math.ceil(float(bound) * NUM)


def test_without_the_guard_there_is_no_bound() -> None:
    config = config_of("gmm_awr")
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)
    assert [learner.noise_bound for learner in learners] == [None, None]


@pytest.mark.parametrize("cleaner", ["cpc_awr", "cpc_only"])
def test_diverged_prototypes_are_restored(cleaner: str) -> None:
    config = config_of(cleaner)
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5)  # gives the optimisers a momentum
    before = [
        copy.deepcopy((member.network.head.state_dict(), member.cpc_optimizer.state_dict())) for member in learners
    ]
    for member in learners:
        member.set_learning_rate(1e12)
        before[member.number - 1][1]["param_groups"][0]["lr"] = 1e12
    result = clean_labels(learners, scoring, labels, config, num_classes=10, epoch=6)
    for member, (head, optimizer) in zip(learners, before, strict=True):
        assert_equal_states(member.network.head.state_dict(), head)
        assert_equal_states(member.cpc_optimizer.state_dict(), optimizer)
        assert any(
            note.startswith(f"network {member.number}: its prototypes became NaN or inf") for note in result.notes
        )
    assert all(bool(probs.isfinite().all()) for pair in result.clean_probs.values() for probs in pair)
    if cleaner == "cpc_awr":
        assert torch.equal(result.clean_probs["cpc"][0], result.clean_probs["gmm"][0])
        assert torch.equal(result.clean_prob_of_network[1], result.clean_probs["gmm"][1])


def test_prototypes_that_contradict_the_losses_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("cpc_awr")
    learners = members_of(config)
    scoring, labels = scores_of(learners)

    def scores_like(sign: float) -> Callable[..., torch.Tensor]:
        def score(network: Network, *_: Any) -> torch.Tensor:
            own = next(i for i, learner in enumerate(learners) if learner.network is network)
            loss = scoring.networks[own].loss_N
            return 0.5 + 0.4 * sign * (loss.median() - loss).sign()

        return score

    monkeypatch.setattr(prototypes, "prototype_clean_prob", scores_like(1.0))
    assert clean_labels(learners, scoring, labels, config, num_classes=10, epoch=5).notes == []
    monkeypatch.setattr(prototypes, "prototype_clean_prob", scores_like(-1.0))
    result = clean_labels(learners, scoring, labels, config, num_classes=10, epoch=6)
    for number in (1, 2):
        assert f"network {number}: {prototypes.CONTRADICTION}" in result.notes


def assert_equal_states(left: Any, right: Any) -> None:
    """Nested states of modules and optimisers are bit-identical."""
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_nearly_clean_labels_leave_the_prototypes_untrained() -> None:
    """The confusion cleaner decides in their place."""
    config = config_of("cpc_awr", cleaner={"guard": "auto"})
    learners = members_of(config)
    scoring, labels = scores_of(learners)
    few = torch.arange(NUM) % 15 == 0  # 8 of 120 labels are wrong
    networks = tuple(
        replace(one, loss_N=torch.where(few, 2.0, 0.2), predicted_N=torch.where(few, (labels + 1) % 10, labels))
        for one in scoring.networks
    )
    before = copy.deepcopy(learners[0].network.head.state_dict())
    result = clean_labels(learners, replace(scoring, networks=networks), labels, config, num_classes=10, epoch=5)
    assert_equal_states(learners[0].network.head.state_dict(), before)
    prob = learners[0].network.classify(networks[0].feat_ND).detach().double().softmax(1)
    expected = fit_confusion(prob, labels, sharpness=TRAINED_SHARPNESS).clean_probability(prob, labels).float()
    floor = 0.5 + 0.5 * networks[0].prob_given_N
    assert torch.equal(result.clean_probs["cpc"][0], torch.where(few, expected, torch.maximum(expected, floor)))
    assert torch.equal(result.partition_for[1].clean_prob_N, result.clean_probs["cpc"][0])
    assert bool(result.partition_for[0].clean_N[~few].all())
