"""Losses against float64 formulas, hand-worked cases and extremes, with their gradients."""

import math

import numpy as np
import pytest
import torch

from fastcpc.semisup.losses import (
    confidence_penalty,
    labelled_loss,
    prior_penalty,
    ramp,
    unlabelled_loss,
    warmup_loss,
)

SHAPES = [(1, 2), (63, 10), (128, 14), (513, 100), (8, 1000)]


def log_softmax64(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def labelled64(logits, targets):
    return -np.mean(
        [
            sum(t * lp for t, lp in zip(row_t, row, strict=True))
            for row_t, row in zip(targets, log_softmax64(logits), strict=True)
        ]
    )


def unlabelled64(logits, targets):
    return ((np.exp(log_softmax64(logits)) - targets) ** 2).sum() / logits.size


def penalty64(logits, targets):
    mean = np.exp(log_softmax64(logits)).sum(axis=0) / len(logits)
    prior = 1 / logits.shape[1]
    return (prior * np.log(prior / mean)).sum()


def confidence64(logits, targets):
    log_prob = log_softmax64(logits)
    return (np.exp(log_prob) * log_prob).sum() / len(logits)


LOSSES = {
    "labelled": (labelled_loss, labelled64),
    "unlabelled": (unlabelled_loss, unlabelled64),
    "penalty": (lambda logits, targets: prior_penalty(logits), penalty64),
    "confidence": (lambda logits, targets: confidence_penalty(logits), confidence64),
}


def case(num_samples, num_classes):
    generator = torch.Generator().manual_seed(num_samples)
    logits = 3 * torch.randn(num_samples, num_classes, generator=generator)
    targets = torch.softmax(2 * torch.randn(num_samples, num_classes, generator=generator), dim=1)
    return logits, targets


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_against_float64(name, shape):
    loss, truth = LOSSES[name]
    logits, targets = case(*shape)
    value = loss(logits, targets)
    assert value.dtype == torch.float32
    assert value.ndim == 0
    expected = truth(logits.double().numpy(), targets.double().numpy())
    assert value.item() == pytest.approx(expected, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_gradient_against_differences_in_float64(name, shape):
    loss, truth = LOSSES[name]
    logits, targets = case(*shape)
    leaf = logits.clone().requires_grad_()
    (3 * loss(leaf, targets)).backward()
    values, targets64 = logits.double().numpy(), targets.double().numpy()
    for row, column in [(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, 1)]:
        step = np.zeros_like(values)
        step[row, column] = 1e-5
        slope = (truth(values + step, targets64) - truth(values - step, targets64)) / 2e-5
        assert leaf.grad[row, column].item() == pytest.approx(3 * slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(name, dtype):
    loss, truth = LOSSES[name]
    logits, targets = case(64, 10)
    logits = logits.to(dtype)
    value = loss(logits, targets)
    assert value.dtype == torch.float32
    expected = truth(logits.double().numpy(), targets.double().numpy())
    assert value.item() == pytest.approx(expected, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name):
    loss, _ = LOSSES[name]
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, 0.0, -1e4]], requires_grad=True)
    value = loss(logits, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_labelled_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    targets = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    expected = (math.log(2) - 0.5 * math.log(0.25) - 0.5 * math.log(0.75)) / 2
    assert labelled_loss(logits, targets).item() == pytest.approx(expected)


def test_unlabelled_is_the_mean_over_elements():
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    targets = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    assert unlabelled_loss(logits, targets).item() == pytest.approx((0.25 + 0.25) / 4)


def test_penalty_by_hand():
    # Each sample is certain, together they are even: no penalty. Means of 1/4 and 3/4: 1/2 log 2 + 1/2 log 2/3.
    assert prior_penalty(torch.tensor([[50.0, 0.0], [0.0, 50.0]])).item() == pytest.approx(0.0, abs=1e-6)
    logits = torch.log(torch.tensor([[0.1, 0.9], [0.4, 0.6]]))
    assert prior_penalty(logits).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)


def test_penalty_of_a_class_that_is_never_predicted():
    logits = torch.tensor([[0.0, -1000.0]]).repeat(5, 1)
    assert prior_penalty(logits).item() == pytest.approx(500.0 - math.log(2), rel=1e-6)


def test_confidence_penalty_ends():
    assert confidence_penalty(torch.zeros(3, 8)).item() == pytest.approx(-math.log(8))
    assert confidence_penalty(100 * torch.eye(8)).item() == pytest.approx(0.0, abs=1e-6)


def test_warmup_loss_with_and_without_penalty():
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.2, 0.8]]))
    labels_B = torch.tensor([0, 0])
    cross_entropy = (math.log(2) + math.log(5)) / 2
    negative_entropy = (-math.log(2) + 0.2 * math.log(0.2) + 0.8 * math.log(0.8)) / 2
    assert warmup_loss(logits, labels_B, False).item() == pytest.approx(cross_entropy)
    assert warmup_loss(logits, labels_B, True).item() == pytest.approx(cross_entropy + negative_entropy)
    assert warmup_loss(logits.bfloat16(), labels_B, True).dtype == torch.float32


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0.0, 0.0), (9.99, 0.0), (10.0, 0.0), (10.5, 0.5 / 16), (18.0, 0.5), (26.0, 1.0), (449.9, 1.0)],
)
def test_ramp(epoch, expected):
    assert ramp(epoch, 10, 16) == pytest.approx(expected)


def test_ramp_without_warmup_and_of_one_epoch():
    assert ramp(0.25, 0, 1) == 0.25
    assert ramp(1.0, 0, 1) == 1.0
