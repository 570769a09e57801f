"""fit_gmm against scikit-learn from the same start, against single fits, and on the groups that cannot be fitted."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from fastcpc.kernels import fit_gmm, order_groups
from fastcpc.kernels.reference import em_reference


def losses(num_samples, num_groups, seed):
    """Values in [0, 1] of two modes, as min-max normalised losses are, and group ids in no order."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, num_samples)
    clean = rng.random(num_samples) < 0.3 + 0.5 * groups / num_groups
    return np.where(clean, rng.beta(1.2, 20, num_samples), rng.beta(6, 5, num_samples)), groups


def starts(num_groups, seed):
    """A start a group: means (G, 2), variances (G, 2), weights (G, 2)."""
    rng = np.random.default_rng(seed)
    means = np.stack([rng.uniform(0.0, 0.2, num_groups), rng.uniform(0.3, 0.9, num_groups)], axis=1)
    share = rng.uniform(0.2, 0.8, num_groups)
    return means, rng.uniform(0.005, 0.05, (num_groups, 2)), np.stack([share, 1 - share], axis=1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("num_samples", "num_groups", "max_iter", "tol"), [(4_000, 5, 10, 1e-2), (900, 3, 100, 1e-7), (30_000, 2, 3, 1e-9)]
)
def test_equals_scikit_learn_from_the_same_start(num_samples, num_groups, max_iter, tol):
    values, groups = losses(num_samples, num_groups, seed=1)
    means, variances, weights = starts(num_groups, seed=2)
    fit = fit_gmm(values, groups, num_groups, max_iter=max_iter, tol=tol, init=(means, variances, weights))
    posterior = fit.clean_probability(values, groups)
    for g in range(num_groups):
        own = values[groups == g][:, None]
        theirs = GaussianMixture(
            2, max_iter=max_iter, tol=tol, reg_covar=5e-4, weights_init=weights[g], means_init=means[g][:, None],
            precisions_init=1.0 / variances[g][:, None, None],
        ).fit(own)  # fmt: skip
        order = np.argsort(theirs.means_[:, 0])
        np.testing.assert_allclose(posterior[groups == g], theirs.predict_proba(own)[:, order[0]], atol=1e-6)
        np.testing.assert_allclose(fit.means[g], theirs.means_[order, 0], rtol=1e-9)
        np.testing.assert_allclose(fit.variances[g], theirs.covariances_[order, 0, 0], rtol=1e-9)
        np.testing.assert_allclose(fit.weights[g], theirs.weights_[order], rtol=1e-9)
        assert fit.lower_bound[g] == pytest.approx(theirs.lower_bound_, rel=1e-10)
        assert (fit.n_iter[g], fit.converged[g]) == (theirs.n_iter_, theirs.converged_)


def test_equals_the_reference_number_by_number():
    values, _ = losses(60, 1, seed=5)
    means, variances, weights = starts(1, seed=6)
    expected = em_reference(values, means[0], variances[0], weights[0], max_iter=7, tol=1e-12, reg_covar=1e-3)
    fit = fit_gmm(values, max_iter=7, tol=1e-12, reg_covar=1e-3, init=(means, variances, weights))
    for got, want in zip((fit.means[0], fit.variances[0], fit.weights[0]), expected[:3], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    assert fit.lower_bound[0] == pytest.approx(expected[3], rel=1e-13)
    assert (fit.n_iter[0], fit.converged[0]) == (7, False)


def test_start_is_two_means():
    """By hand: clusters {0, 1, 2, 3} and {10, 11, 12, 13, 14}, so far apart that one step of EM moves nothing."""
    values = np.array([12.0, 0.0, 3.0, 10.0, 1.0, 14.0, 2.0, 11.0, 13.0])
    fit = fit_gmm(values, max_iter=1, reg_covar=0.0)
    np.testing.assert_allclose(fit.means, [[1.5, 12.0]], rtol=1e-6)
    np.testing.assert_allclose(fit.variances, [[1.25, 2.0]], rtol=1e-5)
    np.testing.assert_allclose(fit.weights, [[4 / 9, 5 / 9]], rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_start_equals_k_means(seed):
    """On two-mode losses the start is scikit-learn's own (k-means run to its end), so that the whole fit agrees."""
    values, _ = losses(3_000, 1, seed=seed)
    theirs = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(values[:, None])
    fit = fit_gmm(values)
    np.testing.assert_allclose(fit.means[0], np.sort(theirs.means_[:, 0]), atol=2e-3)
    assert fit.n_iter[0] == theirs.n_iter_


def test_equals_single_fits_bit_for_bit():
    values, groups = losses(20_000, 40, seed=3)
    groups[groups == 7] = 8  # an empty group, and one of double size
    values[groups == 8] += 2.0
    fit = fit_gmm(values, groups, 40)
    posterior = fit.clean_probability(values, groups)
    for g in range(40):
        alone = fit_gmm(values[groups == g])
        for name in ("means", "variances", "weights", "lower_bound", "n_iter", "converged", "fitted"):
            np.testing.assert_array_equal(
                getattr(fit, name)[g], getattr(alone, name)[0], err_msg=f"{name} of group {g}"
            )
        np.testing.assert_array_equal(posterior[groups == g], alone.clean_probability(values[groups == g]))
    assert fit.fitted.sum() == 39


def test_order_of_samples_does_not_matter():
    values, groups = losses(30_000, 6, seed=4)
    shuffle = np.random.default_rng(0).permutation(len(values))
    fit, shuffled = fit_gmm(values, groups, 6), fit_gmm(values[shuffle], groups[shuffle], 6)
    np.testing.assert_array_equal(fit.means, shuffled.means)
    posterior = fit.clean_probability(values, groups)
    np.testing.assert_array_equal(posterior[shuffle], shuffled.clean_probability(values[shuffle], groups[shuffle]))


def test_small_constant_and_empty_groups_are_not_fitted():
    values, groups = losses(400, 1, seed=0)[0], np.zeros(400, dtype=np.int32)
    groups[100:107] = 1  # 7 samples
    groups[200:300], values[200:300] = 2, 0.25  # constant
    groups[300:308] = 4  # 8 samples; group 3 is empty
    fit = fit_gmm(values, groups, 5)
    assert fit.fitted.tolist() == [True, False, False, False, True]
    assert np.isnan(fit.means[1:4]).all()
    assert np.isnan(fit.lower_bound[1:4]).all()
    assert fit.n_iter[1:4].tolist() == [0, 0, 0]
    assert not fit.converged[1:4].any()
    posterior = fit.clean_probability(values, groups)
    np.testing.assert_array_equal(np.isnan(posterior), (groups == 1) | (groups == 2))


def test_nearly_constant_group_is_fitted_just_above_the_limit():
    steps = np.tile([0.0, 1.0], 50)
    assert fit_gmm(2.01e-6 * steps).fitted[0]  # variance 1.01e-12
    assert not fit_gmm(1.99e-6 * steps).fitted[0]


def test_no_samples():
    fit = fit_gmm(np.zeros(0), np.zeros(0, dtype=np.int64), 3)
    assert fit.fitted.tolist() == [False] * 3
    assert fit.clean_probability(np.zeros(0), np.zeros(0, dtype=np.int64)).shape == (0,)


def test_collapsed_component_is_not_fitted():
    """Without reg_covar a component on equal values has no variance: no mixture, and no NaN passes for one."""
    values = np.concatenate([np.zeros(20), np.linspace(5, 6, 20)])
    assert not fit_gmm(values, reg_covar=0.0).fitted[0]
    assert fit_gmm(values).fitted[0]


def test_smaller_mean_comes_first_and_is_clean():
    values = np.concatenate([np.linspace(0.0, 0.1, 50), np.linspace(0.8, 0.9, 50)])
    init = (np.array([[0.9, 0.1]]), np.full((1, 2), 0.01), np.array([[0.3, 0.7]]))
    fit = fit_gmm(values, init=init)
    assert fit.means[0, 0] < fit.means[0, 1]
    probability = fit.clean_probability(np.array([0.05, 0.85]))
    assert probability[0] > 0.999
    assert probability[1] < 0.001


def test_posterior_by_hand():
    fit = fit_gmm(losses(100, 1, seed=0)[0])
    (m0, m1), (v0, v1), (w0, w1) = fit.means[0], fit.variances[0], fit.weights[0]
    for x in (-3.0, 0.0, 0.2, 0.4, 1.0, 30.0):
        odds = math.log(w1 / w0) - 0.5 * math.log(v1 / v0) - (x - m1) ** 2 / (2 * v1) + (x - m0) ** 2 / (2 * v0)
        expected = 1.0 / (1.0 + math.exp(odds)) if odds < 700 else 0.0
        assert fit.clean_probability(np.array([x]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_far_origin_does_not_cancel():
    """Moments are taken about the old means: values near 1e6 fit as the same values near 0."""
    values, groups = losses(5_000, 2, seed=9)
    near, far = fit_gmm(values, groups, 2, tol=1e-6), fit_gmm(values + 1e6, groups, 2, tol=1e-6)
    np.testing.assert_allclose(far.variances, near.variances, rtol=1e-6)
    np.testing.assert_allclose(far.means - 1e6, near.means, atol=1e-8)


def test_warm_start_from_a_fit_stops_at_once():
    values, groups = losses(3_000, 3, seed=8)
    fit = fit_gmm(values, groups, 3, max_iter=200, tol=1e-6)
    again = fit_gmm(values, groups, 3, tol=1e-4, init=(fit.means, fit.variances, fit.weights))
    assert again.n_iter.tolist() == [2, 2, 2]
    assert again.converged.all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_torch_in_torch_out(dtype):
    values, groups = (torch.from_numpy(array) for array in losses(2_000, 4, seed=7))
    values = values.to(dtype)
    fit = fit_gmm(values, groups.int(), 4)
    expected = fit_gmm(values.double().numpy(), groups.numpy(), 4)
    posterior = fit.clean_probability(values, groups)
    for name in ("means", "variances", "weights", "lower_bound", "n_iter", "converged", "fitted"):
        assert isinstance(getattr(fit, name), torch.Tensor)
        np.testing.assert_array_equal(getattr(fit, name).numpy(), getattr(expected, name), err_msg=name)
    assert posterior.dtype == torch.float64
    np.testing.assert_array_equal(
        posterior.numpy(), expected.clean_probability(values.double().numpy(), groups.numpy())
    )


def test_non_contiguous_values_and_untouched_input():
    values, groups = losses(4_000, 3, seed=11)
    strided, kept = np.repeat(values, 2)[::2], values.copy()
    np.testing.assert_array_equal(fit_gmm(strided, groups, 3).means, fit_gmm(values, groups, 3).means)
    np.testing.assert_array_equal(values, kept)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_any_integer_groups_and_many_groups(dtype):
    values, groups = losses(3_000, 9, seed=12)
    np.testing.assert_array_equal(fit_gmm(values, groups.astype(dtype), 9).means, fit_gmm(values, groups, 9).means)
    sparse = fit_gmm(values, groups * 10_000, 90_000)  # more groups than 16-bit ids
    np.testing.assert_array_equal(sparse.means[::10_000], fit_gmm(values, groups, 9).means)
    assert sparse.fitted.sum() == 9


def test_groups_ordered_once_give_the_same_fit():
    values, groups = losses(3_000, 5, seed=13)
    order = order_groups(groups, 5)
    for shift in (0.0, 1.0):  # as losses change from epoch to epoch
        once, anew = fit_gmm(values + shift, order), fit_gmm(values + shift, groups, 5)
        np.testing.assert_array_equal(once.means, anew.means)
        np.testing.assert_array_equal(once.clean_probability(values, order), anew.clean_probability(values, groups))
    with pytest.raises(ValueError, match="num_groups: expected 5 as the groups were ordered, got 6"):
        fit_gmm(values, order, 6)
    with pytest.raises(ValueError, match=r"groups: expected integer \(2,\) beside values"):
        fit_gmm(values[:2], order)
    with pytest.raises(ValueError, match=r"groups: .* got 4; .* out of range"):
        order_groups(groups, 4)


VALUES, GROUPS = np.linspace(0.0, 1.0, 20), np.arange(20) % 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.where(GROUPS, np.nan, np.inf)[:3], "groups": GROUPS[:3]}, "values: 3 of 3 .*, first at 0, 1, 2"),
        ({"values": np.full(20, np.nan)}, "values: 20 of 20 are NaN or infinite, first at 0, 1, 2, 3, 4, ..."),
        ({"values": 0.5}, "values: expected an array, a list or a Series, got builtins.float"),
        ({"values": np.arange(20)}, r"values: expected floating \(N,\), got int64 \(20,\)"),
        ({"values": VALUES[:, None]}, r"values: expected floating \(N,\), got float64 \(20, 1\)"),
        ({"groups": np.array([0, 1, 2, -1] * 5)}, r"groups: .* got 2; 10 out of range, first at 2, 3, 6, 7, 10, ..."),
        ({"groups": GROUPS[:-1]}, r"groups: expected integer \(20,\) beside values, got int64 \(19,\)"),
        ({"groups": GROUPS.astype(float)}, "groups: expected integer"),
        ({"groups": torch.from_numpy(GROUPS)}, "groups: expected a numpy array, got torch.Tensor on cpu"),
        ({"groups": None}, "groups: expected an array for num_groups=2, got None"),
        ({"num_groups": 0}, "num_groups: expected an integer, 1 or more, got 0"),
        ({"max_iter": 0}, "max_iter: expected an integer, 1 or more, got 0"),
        ({"tol": -1.0}, "tol: expected a finite number, 0 or more, got -1.0"),
        ({"reg_covar": math.nan}, "reg_covar: expected a finite number, 0 or more, got nan"),
        ({"init": (np.ones((2, 2)), np.ones((2, 2)))}, r"init: expected \(means, variances, weights\), got 2 items"),
        ({"init": (np.eye(2), np.eye(2), np.ones(2))}, r"init: expected weights of shape \(2, 2\), got \(2,\)"),
        ({"init": (np.eye(2), np.eye(2), np.full((2, 2), 0.5))}, r"init: .*variances \[1.0, 0.0\].* for group 0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(change, message):
    arguments = {"values": VALUES, "groups": GROUPS, "num_groups": 2} | change
    with pytest.raises(ValueError, match=message):
        fit_gmm(**arguments)


def test_clean_probability_refuses_bad_input():
    fit = fit_gmm(VALUES, GROUPS, 2)
    with pytest.raises(ValueError, match=r"groups: expected ids in \[0, 1\]"):
        fit.clean_probability(VALUES, GROUPS + 1)
    with pytest.raises(
        ValueError, match=r"values: expected a numpy array as the fit was given, got torch.Tensor on cpu"
    ):
        fit.clean_probability(torch.from_numpy(VALUES), torch.from_numpy(GROUPS))
