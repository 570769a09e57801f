import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from fastcpc.cleaner.gmm import agnostic_posterior, aware_posterior
from fastcpc.distributed import whole_shard


def two_modes(num: int, low: float, high: float, seed: int) -> torch.Tensor:
    draws = np.random.default_rng(seed)
    values = np.concatenate([draws.normal(low, 0.05, num // 2), draws.normal(high, 0.1, num - num // 2)])
    return torch.from_numpy(draws.permutation(values).astype(np.float32))


def test_small_losses_are_clean() -> None:
    losses = two_modes(400, 0.1, 0.8, 0)
    posterior = agnostic_posterior(losses)
    assert posterior.fitted
    assert ((posterior.clean_prob_N > 0.5) == (losses < 0.4)).float().mean() > 0.99


def test_agnostic_posterior_is_scikit_learns() -> None:
    losses = two_modes(500, 0.2, 0.7, 1)
    column = losses.double().numpy()[:, None]
    model = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(column)
    truth = model.predict_proba(column)[:, model.means_.argmin()]
    np.testing.assert_allclose(agnostic_posterior(losses).clean_prob_N.numpy(), truth, atol=1e-3)


def test_each_class_has_its_own_threshold() -> None:
    # class 0 learns fast (0.1 against 0.4), class 1 slowly (0.6 against 0.9): one threshold for both cannot be right
    losses = torch.cat([two_modes(200, 0.1, 0.4, 2), two_modes(200, 0.6, 0.95, 3)])
    labels = torch.arange(2).repeat_interleave(200)
    truth = torch.cat([losses[:200] < 0.25, losses[200:] < 0.75])
    aware = aware_posterior(losses, labels, 2)
    assert aware.fallback_classes == ()
    assert ((aware.clean_prob_N > 0.5) == truth).float().mean() > 0.95
    assert ((agnostic_posterior(losses).clean_prob_N > 0.5) == truth).float().mean() < 0.8


def test_small_and_constant_classes_take_the_agnostic_posterior() -> None:
    losses = torch.cat([two_modes(100, 0.1, 0.8, 4), torch.tensor([0.1] * 7), torch.full((20,), 0.3)])
    labels = torch.cat([torch.zeros(100), torch.ones(7), torch.full((20,), 2)]).long()
    aware, agnostic = aware_posterior(losses, labels, 4), agnostic_posterior(losses)
    assert aware.fallback_classes == (1, 2)  # class 3 has no sample: nothing to say of it
    torch.testing.assert_close(aware.clean_prob_N[100:], agnostic.clean_prob_N[100:], rtol=0, atol=0)
    assert not torch.equal(aware.clean_prob_N[:100], agnostic.clean_prob_N[:100])


def test_constant_losses_are_not_fitted() -> None:
    assert not agnostic_posterior(torch.zeros(50)).fitted
    assert not aware_posterior(torch.zeros(50), torch.arange(50) % 3, 3).fitted


def test_fits_are_kept() -> None:
    losses, labels = two_modes(300, 0.1, 0.8, 5), torch.arange(300) % 3
    assert set(agnostic_posterior(losses).fits) == {"agn"}
    assert set(aware_posterior(losses, labels, 3).fits) == {"awr"}
    assert set(aware_posterior(losses, (torch.arange(300) == 0).long(), 2).fits) == {"agn", "awr"}


def test_summed_mixtures_of_one_rank_are_bit_identical() -> None:
    losses, labels = two_modes(300, 0.1, 0.8, 6), torch.arange(300) % 3
    whole = aware_posterior(losses, labels, 3)
    summed = aware_posterior(losses, labels, 3, shard=whole_shard(300))
    assert torch.equal(whole.clean_prob_N, summed.clean_prob_N)
    for part in ("means", "variances", "weights", "lower_bound"):
        assert torch.equal(getattr(whole.fits["awr"], part), getattr(summed.fits["awr"], part))
