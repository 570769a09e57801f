import copy

import pytest
import torch
from torch import nn

from fastcpc.cleaner import prototype_sgd
from fastcpc.cleaner.prototype_sgd import SampleSets, sgd_epoch
from fastcpc.cleaner.prototypes import (
    contradicts_losses,
    contrastive_clean_prob,
    contrastive_loss,
    num_passes,
    prototype_clean_prob,
    pseudo_labels,
    train_contrastive,
    train_prototypes,
)
from fastcpc.config.schema import CpcConfig
from fastcpc.distributed import whole_shard
from fastcpc.kernels import prototype_loss
from fastcpc.kernels.prototype_torch import loss_weights
from fastcpc.models.network import Network
from fastcpc.models.prototype_head import PrototypeHead


def head_only(projector: str = "linear", normalise: bool = False, seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(nn.Identity(), 12, 5, PrototypeHead(12, 7, 5, projector, normalise))  # type: ignore[arg-type]


def sgd(network: Network) -> torch.optim.SGD:
    return torch.optim.SGD(network.prototype_parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def samples(num: int = 60, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    feat = torch.randn(num, 12, generator=draws)
    labels = torch.randint(5, (num,), generator=draws)
    clean = torch.rand(num, generator=draws) > 0.5
    pseudo = torch.where(clean | (torch.rand(num, generator=draws) > 0.5), -1, (labels + 1) % 5)
    return feat, labels, clean, pseudo


def test_number_of_passes() -> None:
    assert num_passes(0, 50_000, 128) == 1  # CIFAR: 391 steps
    assert num_passes(0, 350 * 64, 64) == 1
    assert num_passes(0, 1437, 64) == 30  # 23 steps a pass, about 700 in all
    assert num_passes(32, 1437, 64) == 32


def test_pseudo_labels_by_hand() -> None:
    # threshold of class 0: mean p_given over the clean samples of label 0 = (0.9 + 0.5) / 2 = 0.7; of class 1: 0.6;
    # class 2: none
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 2])
    clean = torch.tensor([True, True, True, False, False, False, False])
    predicted = torch.tensor([0, 0, 1, 0, 0, 1, 2])
    p_given = torch.tensor([0.9, 0.5, 0.6, 0.1, 0.2, 0.61, 0.99])
    p_predicted = torch.tensor([0.9, 0.5, 0.6, 0.71, 0.69, 0.61, 0.99])
    found = pseudo_labels(predicted, p_predicted, p_given, labels, clean, num_classes=3)
    assert found.tolist() == [-1, -1, -1, 0, -1, 1, -1]


@pytest.mark.parametrize(("projector", "normalise"), [("linear", False), ("mlp", False), ("linear", True)])
def test_training_is_sgd_on_the_prototype_loss(
    projector: str, normalise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = head_only(projector, normalise)
    plain = copy.deepcopy(network)
    feat, labels, clean, pseudo = samples()
    draws = torch.Generator().manual_seed(3)
    batches = [torch.randperm(60, generator=draws)[:16] for _ in range(12)]
    batches += [torch.nonzero(clean).flatten()[:16], torch.nonzero(~clean).flatten()[:16]]  # an empty U, an empty X
    monkeypatch.setattr(prototype_sgd, "CHUNK", 3 * 16 * 5)  # three batches at a time
    sgd_epoch(network, sgd(network), feat, SampleSets(labels, clean, pseudo, 0.7), batches, whole_shard(len(labels)))
    optimizer = sgd(plain)
    for index in batches:
        optimizer.zero_grad()
        loss = prototype_loss(
            plain.embed(feat[index]), plain.prototype_matrix(), labels[index], clean[index], pseudo[index], alpha=0.7
        )
        loss.backward()
        optimizer.step()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_loss_weights_by_hand() -> None:
    # one batch: two clean samples of label 0, one noisy of label 1 whose pseudo label is 2; alpha 0.5, K = 4
    labels, clean, pseudo = torch.tensor([[0, 0, 1]]), torch.tensor([[True, True, False]]), torch.tensor([[-1, -1, 2]])
    weight, target = loss_weights(labels, clean, pseudo, 4, alpha=0.5)
    assert weight[0].tolist() == [[0.5, 0.125, 0.125, 0.125], [0.5, 0.125, 0.125, 0.125], [0.0, 1.0, 0.5, 0.0]]
    assert target[0].tolist() == [[0.5, 0, 0, 0], [0.5, 0, 0, 0], [0, 0, 0.5, 0]]


def test_training_changes_the_prototype_head_only_and_is_repeatable() -> None:
    feat, labels, clean, pseudo = samples()
    results = []
    for _ in range(2):
        network = head_only()
        before = network.classifier.weight.detach().clone()
        train_prototypes(
            network, sgd(network), feat, labels, clean, pseudo, CpcConfig(passes=2), alpha=1.0, batch_size=16, seed=9
        )
        assert torch.equal(network.classifier.weight, before)
        results.append(network.prototype_matrix().detach())
    assert torch.equal(*results)
    assert not torch.equal(results[0], head_only().prototype_matrix())


def test_prototypes_learn_which_labels_are_clean() -> None:
    draws = torch.Generator().manual_seed(4)
    truth = torch.randint(5, (400,), generator=draws)
    feat = torch.randn(400, 12, generator=draws) * 0.3 + 3 * torch.eye(12)[truth]
    wrong = torch.arange(400) < 150
    labels = torch.where(wrong, (truth + 1) % 5, truth)
    network = head_only()
    train_prototypes(
        network,
        sgd(network),
        feat,
        labels,
        ~wrong,
        torch.full((400,), -1),
        CpcConfig(passes=20),
        alpha=0.0,
        batch_size=32,
        seed=0,
    )
    scores = prototype_clean_prob(network, feat, labels, chunk=37)
    assert ((scores > 0.5) == ~wrong).float().mean() > 0.99
    expected = torch.sigmoid((network.embed(feat) * network.prototype_matrix()[labels]).sum(1))
    torch.testing.assert_close(scores, expected.detach())


def test_contrastive_loss_by_hand() -> None:
    embeddings, prototypes = torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 3.0]])  # cosines 1 and 0
    expected = -torch.log(torch.exp(torch.tensor(2.0)) / (torch.exp(torch.tensor(2.0)) + 1))
    torch.testing.assert_close(contrastive_loss(embeddings, prototypes, torch.tensor([0]), 0.5), expected)


def test_contrastive_training_scores_by_cosine() -> None:
    feat, labels, _, _ = samples()
    network = head_only()
    train_contrastive(network, sgd(network), feat, labels, CpcConfig(passes=3), batch_size=16, seed=0)
    scores = contrastive_clean_prob(network, feat, labels, 0.1, chunk=7)
    cosine = torch.cosine_similarity(network.embed(feat), network.prototype_matrix()[labels], dim=1)
    torch.testing.assert_close(scores, torch.sigmoid(cosine / 0.1).detach())


def test_prototypes_contradict_the_losses_where_low_ones_get_clearly_lower_probabilities() -> None:
    loss = torch.tensor([0.1, 3.0, 0.2, 2.0, 0.3, 1.0])
    low_is_clean = torch.tensor([0.9, 0.2, 0.8, 0.4, 0.9, 0.1])
    assert not contradicts_losses(low_is_clean, loss)
    assert contradicts_losses(1 - low_is_clean, loss)
    # almost no label is wrong: all probabilities are near 1, and their order says little
    assert not contradicts_losses(torch.tensor([0.97, 0.99, 0.96, 1.0, 0.98, 0.99]), loss)
    # few samples whose probabilities vary widely: the order may be chance
    assert not contradicts_losses(torch.tensor([0.1, 0.9, 0.2, 0.1, 0.9, 0.9]), loss)
    assert not contradicts_losses(low_is_clean, torch.ones(6))
    assert not contradicts_losses(torch.zeros(1), torch.zeros(1))
