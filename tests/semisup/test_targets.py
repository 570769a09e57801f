"""Guessed and refined targets against hand-worked cases and float64."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fastcpc.semisup.targets import co_guess, co_refine, mean_softmax, sharpen


def softmax64(logits: torch.Tensor) -> np.ndarray:
    values = logits.double().numpy()
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sharpen64(prob: np.ndarray, temperature: float) -> np.ndarray:
    powers = prob ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def test_sharpen_by_hand():
    # Squares 0.36, 0.09, 0.01 sum to 0.46.
    sharp = sharpen(torch.tensor([[0.6, 0.3, 0.1]]), 0.5)
    assert_close(sharp, torch.tensor([[36 / 46, 9 / 46, 1 / 46]]))


def test_sharpen_at_one_changes_nothing():
    prob_BK = torch.softmax(torch.randn(63, 10, generator=torch.Generator().manual_seed(0)), dim=1)
    assert_close(sharpen(prob_BK, 1.0), prob_BK)


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_sharpen_keeps_one_hot_and_uniform(temperature, num_classes):
    one_hot_BK = torch.eye(num_classes)[:7]
    assert torch.equal(sharpen(one_hot_BK, temperature), one_hot_BK)
    uniform_BK = torch.full((3, num_classes), 1 / num_classes)
    assert_close(sharpen(uniform_BK, temperature), uniform_BK)


def test_sharpen_of_tiny_probabilities():
    prob_BK = torch.tensor([[1e-38, 1 - 1e-7, 1e-7], [0.0, 1e-30, 1.0], [1e-40, 0.5, 0.5]])
    for temperature in (0.01, 0.5, 2.0):
        expected = torch.from_numpy(sharpen64(prob_BK.double().numpy(), temperature)).float()
        assert_close(sharpen(prob_BK, temperature), expected, rtol=2e-5, atol=1e-30)


def test_sharpen_does_not_underflow_at_low_temperature():
    # 0.34 ** 1000 is 0 in float32; the rows' shape must survive.
    sharp = sharpen(torch.tensor([[0.34, 0.33, 0.33], [0.5, 0.5, 0.0]]), 1e-3)
    assert_close(sharp[0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-9, rtol=0)
    assert_close(sharp[1], torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize(("num_samples", "num_classes"), [(1, 2), (63, 10), (5, 1000)])
def test_guess_is_the_sharpened_mean_of_all_predictions(num_samples, num_classes):
    generator = torch.Generator().manual_seed(num_classes)
    logits = [4 * torch.randn(num_samples, num_classes, generator=generator) for _ in range(4)]
    expected = sharpen64(np.mean([softmax64(each) for each in logits], axis=0), 0.5)
    guessed_BK = co_guess(logits, 0.5)
    assert guessed_BK.dtype == torch.float32
    assert_close(guessed_BK.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-9)


def test_mean_softmax_counts_predictions():
    certain_BK = torch.tensor([[1e4, -1e4]])
    even_BK = torch.zeros(1, 2)
    assert_close(mean_softmax([certain_BK, even_BK]), torch.tensor([[0.75, 0.25]]))
    assert_close(mean_softmax([certain_BK, even_BK, even_BK, even_BK]), torch.tensor([[0.625, 0.375]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_float32_targets(dtype):
    generator = torch.Generator().manual_seed(1)
    logits = [torch.randn(8, 10, generator=generator).to(dtype) for _ in range(2)]
    expected = sharpen64(np.mean([softmax64(each) for each in logits], axis=0), 0.5)
    labels_B = torch.arange(8)
    targets_BK = co_refine(labels_B, torch.zeros(8, dtype=dtype), logits, 0.5, 10)
    assert targets_BK.dtype == torch.float32
    assert_close(targets_BK.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-9)


def test_refine_trusts_the_label_as_far_as_it_is_clean():
    logits = [
        torch.log(torch.tensor([[0.7, 0.2, 0.1]])).repeat(3, 1),
        torch.log(torch.tensor([[0.5, 0.4, 0.1]])).repeat(3, 1),
    ]
    labels_B = torch.tensor([2, 2, 2])
    targets_BK = co_refine(labels_B, torch.tensor([1.0, 0.0, 0.5]), logits, 1.0, 3)
    assert_close(targets_BK, torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.3, 0.1], [0.3, 0.15, 0.55]]))
    sharp_BK = co_refine(labels_B, torch.tensor([1.0, 0.0, 0.5]), logits, 0.5, 3)
    squares = torch.tensor([[0.0, 0.0, 1.0], [0.36, 0.09, 0.01], [0.09, 0.0225, 0.3025]])
    assert_close(sharp_BK, squares / squares.sum(dim=1, keepdim=True))


def test_refine_takes_each_samples_own_label():
    labels_B = torch.tensor([3, 0, 9, 9])
    targets_BK = co_refine(labels_B, torch.ones(4), [torch.randn(4, 10)], 0.5, 10)
    assert torch.equal(targets_BK, torch.eye(10)[labels_B])


def test_extreme_logits_give_no_nan():
    logits = [torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])]
    targets_BK = co_refine(torch.tensor([1, 1]), torch.tensor([0.0, 0.0]), logits, 0.5, 3)
    assert_close(targets_BK, torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]))
