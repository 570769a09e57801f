"""The guard's bound of the share of wrong labels, and what it keeps of a cleaner's rejections."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcpc.cleaner.base import CleanerResult
from fastcpc.cleaner.guard import CONFIDENT, DEVIATIONS, MIN_CONFIDENT, NEARLY_CLEAN, guarded, noise_bound


def plain_bound(predicted: list[int], confidence: list[float], labels: list[int], classes: int) -> float:
    """The same, a class at a time."""
    rate = variance = 0.0
    for k in range(classes):
        rows = sorted((i for i in range(len(labels)) if predicted[i] == k), key=lambda i: -confidence[i])
        if not rows:
            continue
        count = len(rows)
        number = max(math.ceil(CONFIDENT * count), min(math.ceil(count / 2), MIN_CONFIDENT))
        rows = [i for i in rows if confidence[i] >= confidence[rows[number - 1]]]
        wrong, number, weight = sum(labels[i] != k for i in rows), len(rows), count / len(labels)
        smooth = (wrong + 0.5) / (number + 1)
        rate += weight * wrong / number
        variance += weight**2 * smooth * (1 - smooth) / number
    return rate + DEVIATIONS * math.sqrt(variance)


@pytest.mark.parametrize("num", [1, 7, 300, 4001])
def test_bound_equals_a_plain_loop(num: int) -> None:
    draws = torch.Generator().manual_seed(num)
    predicted = torch.randint(4, (num,), generator=draws)  # class 4 of 5 is never predicted
    confidence = torch.rand(num, generator=draws).clamp_max(0.8)  # a fifth of them is equal, as where softmax is 1
    labels = torch.where(torch.rand(num, generator=draws) < 0.2, (predicted + 1) % 5, predicted)
    bound = noise_bound(predicted, confidence, labels, 5)
    assert bound.dtype == torch.float64 and bound.ndim == 0
    assert float(bound) == pytest.approx(plain_bound(predicted.tolist(), confidence.tolist(), labels.tolist(), 5))


def overlapping(rate: float, num: int = 20_000) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, confidences and given labels. A third is hard: half of these predictions are wrong."""
    draws = torch.Generator().manual_seed(1)
    true = torch.randint(10, (num,), generator=draws)
    hard = torch.rand(num, generator=draws) < 1 / 3
    missed = hard & (torch.rand(num, generator=draws) < 0.5)
    predicted = torch.where(missed, (true + 1) % 10, true)
    confidence = torch.where(hard, 0.3, 0.8) + 0.2 * torch.rand(num, generator=draws)
    labels = torch.where(torch.rand(num, generator=draws) < rate, (true + 5) % 10, true)
    return predicted, confidence, labels


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3])
def test_bound_is_near_the_share_of_wrong_labels_where_classes_overlap(rate: float) -> None:
    """The network contradicts 1/6 of the correct labels."""
    predicted, confidence, labels = overlapping(rate)
    assert float((predicted != labels).double().mean()) > rate + 0.1
    assert rate <= float(noise_bound(predicted, confidence, labels, 10)) <= rate + 0.03


def data(predicted: Tensor, labels: Tensor, bound: float | None) -> Any:
    """What the guard reads of a cleaner's input."""
    return SimpleNamespace(
        config=SimpleNamespace(cleaner=SimpleNamespace(tau=0.5)),
        labels_N=labels,
        predicted_N=predicted,
        prob_given_N=torch.full((len(labels),), 0.2),
        noise_bound=None if bound is None else torch.tensor(bound, dtype=torch.float64),
    )


def test_a_low_bound_keeps_the_labels_of_the_highest_clean_probability() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    predicted = torch.cat([torch.zeros(70), torch.ones(30)]).long()  # the last 30 labels are contradicted
    clean_prob = torch.cat([torch.full((70,), 0.1), torch.linspace(0.4, 0.01, 30)])
    kept = guarded(CleanerResult(clean_prob), data(predicted, labels, 0.12)).clean_prob_N
    assert int((kept <= 0.5).sum()) == 12
    assert torch.equal(kept[88:], clean_prob[88:])  # the lowest ones are unchanged
    torch.testing.assert_close(kept[:88], torch.full((88,), 0.5 + 0.5 * 0.2))


@pytest.mark.parametrize("bound", [None, NEARLY_CLEAN, 0.4])
def test_without_a_low_bound_only_predicted_labels_are_kept(bound: float | None) -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    predicted = torch.cat([torch.zeros(50), torch.ones(50)]).long()
    kept = guarded(CleanerResult(torch.full((100,), 0.1)), data(predicted, labels, bound)).clean_prob_N
    assert int((kept <= 0.5).sum()) == 50
    assert torch.equal(kept[50:], torch.full((50,), 0.1))
