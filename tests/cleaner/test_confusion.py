"""The confusion cleaner: EM against a loop in plain Python, and known confusions found again."""

import numpy as np
import pytest
import torch

from fastcpc.cleaner import confusion
from fastcpc.cleaner.confusion import fit_confusion

SIMILAR = torch.tensor([1, 2, 0, 4, 3, 5])  # asym noise: the label that a class is mistaken for; class 5 has no noise


def predictions(labels: torch.Tensor, seed: int, strength: float = 3.0) -> torch.Tensor:
    """Softmax (N, 6) of a network that is right in most cases and unsure in some."""
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(labels), 6, generator=draws)
    logits[torch.arange(len(labels)), labels] += strength + torch.randn(len(labels), generator=draws)
    return logits.softmax(1)


def noisy(num: int, rate: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """True and given labels (N,); given ones are those of SIMILAR with probability rate."""
    draws = torch.Generator().manual_seed(seed)
    true = torch.randint(6, (num,), generator=draws)
    return true, torch.where(torch.rand(num, generator=draws) < rate, SIMILAR[true], true)


def plain_em(prob: np.ndarray, labels: np.ndarray, rounds: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """The same EM, a sample at a time."""
    num, size = prob.shape
    matrix, posterior = np.eye(size), np.zeros((num, size))
    for i in range(num):
        posterior[i] = prob[i] ** sharpness / (prob[i] ** sharpness).sum()
    for _ in range(rounds):
        counts = np.eye(size)
        for i in range(num):
            counts[:, labels[i]] += posterior[i]
        matrix = counts / counts.sum(1, keepdims=True)
        for i in range(num):
            weight = prob[i] ** sharpness * matrix[:, labels[i]]
            posterior[i] = weight / weight.sum()
    return matrix, posterior


@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_em_equals_the_plain_loop(sharpness: float) -> None:
    true, given = noisy(200, 0.3, 1)
    given[given == 4] = 3  # a class without samples
    prob = predictions(true, 2)
    fit = fit_confusion(prob, given, sharpness=sharpness)
    matrix, posterior = plain_em(prob.double().numpy(), given.numpy(), fit.n_iter, sharpness)
    np.testing.assert_allclose(fit.matrix_KK, matrix, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(fit.posterior(prob.double(), given), posterior, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("numbers", [1, 18, 6 * 200])
def test_parts_of_the_posterior_are_put_together(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one row, of three rows with a shorter last one, and a single part."""
    true, given = noisy(200, 0.3, 8)
    prob = predictions(true, 9).double()
    fit = fit_confusion(prob, given)
    monkeypatch.setattr(confusion, "POSTERIOR_NUMBERS", numbers)
    expected = prob**fit.sharpness * fit.matrix_KK.T[given]
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(fit.posterior(prob, given), expected, rtol=1e-12, atol=0)
    own = expected[torch.arange(200), given]
    torch.testing.assert_close(fit.clean_probability(prob, given), own, rtol=1e-12, atol=0)


def test_layout_and_no_samples() -> None:
    """Columns of a larger tensor count as the same values; without samples the matrix is the identity."""
    true, given = noisy(200, 0.3, 10)
    prob = predictions(true, 11)
    wide = torch.stack([prob, prob], 2).flatten(1)[:, ::2]
    assert not wide.is_contiguous()
    fit, other = fit_confusion(prob, given), fit_confusion(wide, given)
    assert torch.equal(fit.matrix_KK, other.matrix_KK)
    assert torch.equal(fit.posterior(prob, given), other.posterior(wide, given))
    none = fit_confusion(prob[:0], given[:0])
    assert torch.equal(none.matrix_KK, torch.eye(6, dtype=torch.float64))
    assert none.posterior(prob[:0], given[:0]).shape == (0, 6)
    assert none.clean_probability(prob[:0], given[:0]).shape == (0,)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_known_confusion_is_found_again(rate: float) -> None:
    true, given = noisy(6000, rate, 3)
    prob = predictions(true, 4)
    fit = fit_confusion(prob, given)
    expected = (1 - rate) * torch.eye(6) + rate * torch.eye(6)[SIMILAR]
    assert float((fit.matrix_KK - expected).abs().max()) < 0.04
    clean_prob = fit.clean_probability(prob, given)
    is_clean = given == true
    assert float(((clean_prob > 0.5) == is_clean).float().mean()) > 0.94


def test_correct_labels_stay_clean() -> None:
    """Without noise no label is rejected, although the network is wrong on some samples."""
    true, _ = noisy(3000, 0.0, 5)
    prob = predictions(true, 6)
    assert int((prob.argmax(1) != true).sum()) > 50
    fit = fit_confusion(prob, true)
    assert float(fit.matrix_KK.diagonal().min()) > 0.99
    assert int((fit.clean_probability(prob, true) <= 0.5).sum()) <= 3


def test_softmax_of_zero_and_float16_give_probabilities() -> None:
    true, given = noisy(100, 0.3, 7)
    prob = torch.nn.functional.one_hot(true, 6).half()
    fit = fit_confusion(prob, given)
    posterior = fit.posterior(prob, given)
    assert bool(posterior.isfinite().all()) and bool(fit.matrix_KK.isfinite().all())
    assert posterior.dtype == torch.float16
    torch.testing.assert_close(posterior.double().sum(1), torch.ones(100, dtype=torch.float64), rtol=0, atol=1e-3)
