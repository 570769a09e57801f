"""MixUp: the weight's distribution and the mixed values."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from fastcpc.data.rng import generator
from fastcpc.semisup.mixup import Partners, mixup, sample_lambda


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 4.0])
def test_weight_follows_the_folded_beta(alpha):
    source = generator(0, "mixup")
    weights = np.array([sample_lambda(alpha, source) for _ in range(2000)])
    assert weights.min() >= 0.5
    assert weights.max() <= 1.0

    def folded_cdf(weight):
        return np.where(weight < 0.5, 0.0, 2 * stats.beta.cdf(weight, alpha, alpha) - 1)

    assert stats.kstest(weights, folded_cdf).pvalue > 1e-3


def test_weight_depends_on_the_generator_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    first = [sample_lambda(4.0, generator(1, step)) for step in range(5)]
    torch.manual_seed(9)
    np.random.seed(9)
    assert [sample_lambda(4.0, generator(1, step)) for step in range(5)] == first
    assert len(set(first)) == 5


def test_weight_advances_the_generator():
    source = generator(2)
    assert sample_lambda(4.0, source) != sample_lambda(4.0, source)


def mix_both(inputs, targets, lam, permutation):
    partners = Partners(permutation)
    return mixup(inputs, partners.fetch(inputs)(), lam), mixup(targets, partners.fetch(targets)(), lam)


def test_mixed_values_by_hand():
    inputs = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    targets = torch.eye(4)
    mixed_inputs, mixed_targets = mix_both(inputs, targets, torch.tensor(0.75), torch.tensor([3, 1, 0, 2]))
    assert_close(mixed_inputs, torch.tensor([[1.75, 17.5], [2.0, 20.0], [2.5, 25.0], [3.75, 37.5]]))
    expected = torch.tensor([[0.75, 0, 0, 0.25], [0, 1.0, 0, 0], [0.25, 0, 0.75, 0], [0, 0, 0.25, 0.75]])
    assert_close(mixed_targets, expected)


def test_weight_of_one_changes_nothing():
    inputs, targets = torch.randn(8, 3, 5, 5), torch.rand(8, 10)
    mixed_inputs, mixed_targets = mix_both(inputs, targets, torch.tensor(1.0), torch.randperm(8))
    assert torch.equal(mixed_inputs, inputs)
    assert torch.equal(mixed_targets, targets)


def test_shorter_permutation_mixes_the_first_samples_with_partners_from_all():
    inputs, targets = torch.arange(4.0).reshape(4, 1), torch.eye(4)
    mixed_inputs, mixed_targets = mix_both(inputs, targets, torch.tensor(0.5), torch.tensor([3, 2]))
    assert_close(mixed_inputs, torch.tensor([[1.5], [1.5]]))
    assert_close(mixed_targets, torch.tensor([[0.5, 0, 0, 0.5], [0, 0.5, 0.5, 0]]))


def test_types_and_layout_of_images_stay():
    images = torch.randn(4, 3, 8, 8).to(torch.bfloat16).to(memory_format=torch.channels_last)
    mixed_images, mixed_targets = mix_both(images, torch.rand(4, 2), torch.tensor(0.7), torch.randperm(4))
    assert mixed_images.dtype == torch.bfloat16
    assert mixed_images.is_contiguous(memory_format=torch.channels_last)
    assert mixed_targets.dtype == torch.float32
