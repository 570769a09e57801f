"""The CUDA form of fit_gmm: compiled by NVRTC for every target, its source run on a CPU by value; on a GPU the rest."""

import re
import shutil
import sys
from types import ModuleType

import cuda_on_cpu
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_gpu import pretended_gpu

from fastcpc.kernels import fit_gmm, gmm_cupy, order_groups
from fastcpc.kernels.gmm_cupy import BLOCKS_PER_MULTIPROCESSOR, OPTIONS, SOURCE, VALUE_TYPES, plan_teams

FIELDS = ("means", "variances", "weights", "lower_bound", "n_iter", "converged", "fitted")


def losses(num_samples, num_groups, seed):
    """Values in [0, 1] of two modes, and group ids in no order."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, num_samples)
    clean = rng.random(num_samples) < 0.3 + 0.5 * groups / num_groups
    return np.where(clean, rng.beta(1.2, 20, num_samples), rng.beta(6, 5, num_samples)), groups


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the compiled source; every machine that builds PyTorch extensions has g++, some others do not."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return tmp_path_factory.mktemp("cuda_on_cpu")


@pytest.fixture
def cupy(folder, monkeypatch):
    """CuPy on the CPU in place of CuPy: what ``import cupy`` finds."""
    module = cuda_on_cpu.FakeCupy(folder)
    monkeypatch.setitem(sys.modules, "cupy", module)
    gmm_cupy.problem.cache_clear()
    yield module
    gmm_cupy.problem.cache_clear()


def agree(on_device, in_memory, tolerance=1e-12):
    """Both fits are the same: counts and flags exactly, numbers to rounding."""
    for name in FIELDS:
        got, want = getattr(on_device, name), getattr(in_memory, name)
        got = np.asarray(got.cpu() if isinstance(got, torch.Tensor) else got)
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("value", VALUE_TYPES.values())
def test_nvrtc_compiles_the_source_without_spills(architecture, value):
    from cupy.cuda import nvrtc

    options = (f"--gpu-architecture=sm_{architecture}", f"-DVALUE={value}", *OPTIONS, "-Xptxas", "-v")
    program = nvrtc.createProgram(SOURCE.read_text(encoding="ascii"), "gmm_em.cu", [], [])
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert nvrtc.getCUBIN(program).startswith(b"\x7fELF")
    log = nvrtc.getProgramLog(program)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert spills == [("0", "0")] * 3, log
    assert "warning" not in log.lower()


@pytest.mark.parametrize(("num_samples", "num_groups"), [(900, 1), (900, 3), (5_000, 2), (300, 14), (9_000, 1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_source_equals_numpy_form(cupy, num_samples, num_groups, dtype):
    """One block a group and several, more groups than teams and fewer, groups of no whole number of blocks."""
    values, groups = losses(num_samples, num_groups, seed=1)
    values = values.astype(dtype)
    fit = fit_gmm(cuda_on_cpu.fake(values), cuda_on_cpu.fake(groups), num_groups)
    expected = fit_gmm(values, groups, num_groups)
    agree(fit, expected)
    posterior = fit.clean_probability(cuda_on_cpu.fake(values), cuda_on_cpu.fake(groups))
    np.testing.assert_allclose(posterior, expected.clean_probability(values, groups), rtol=1e-9, atol=1e-12)
    names = [(name, cooperative) for name, _, cooperative in cupy.launches]
    assert names == [("inspect", False), ("fit", True), ("inspect", False), ("posterior", False)]


def test_order_in_which_threads_run_does_not_matter(cupy):
    values, groups = (cuda_on_cpu.fake(array) for array in losses(3_000, 2, seed=2))
    first = fit_gmm(values, groups, 2)
    for seed in (1, 2):
        cupy.seed = seed
        again = fit_gmm(values, groups, 2)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_given_start_and_tight_tolerance(cupy):
    values, groups = losses(2_000, 2, seed=3)
    init = (np.array([[0.0, 0.5]] * 2), np.full((2, 2), 0.02), np.array([[0.4, 0.6]] * 2))
    options = {"max_iter": 60, "tol": 1e-9, "reg_covar": 1e-4}
    fit = fit_gmm(
        cuda_on_cpu.fake(values), cuda_on_cpu.fake(groups), 2, init=[cuda_on_cpu.fake(p) for p in init], **options
    )
    expected = fit_gmm(values, groups, 2, init=init, **options)
    assert expected.n_iter.min() > 5
    agree(fit, expected)


def test_groups_without_a_fit(cupy):
    values, groups = losses(400, 1, seed=0)[0], np.zeros(400, dtype=np.int64)
    groups[100:107] = 1  # 7 samples
    groups[200:300], values[200:300] = 2, 0.25  # constant
    groups[300:308] = 4  # 8 samples; group 3 is empty
    fit = fit_gmm(cuda_on_cpu.fake(values), cuda_on_cpu.fake(groups), 5)
    assert fit.fitted.tolist() == [True, False, False, False, True]
    agree(fit, fit_gmm(values, groups, 5))


def test_collapse_many_equal_values_and_two_values(cupy):
    for values in (
        np.concatenate([np.zeros(20), np.linspace(5, 6, 20)]),
        np.tile([0.0, 1.0], 40),
        np.round(losses(500, 1, seed=5)[0], 2),
        losses(500, 1, seed=5)[0] * 1e-3 + 1e4,
    ):
        for reg_covar in (0.0, 5e-4):
            fit = fit_gmm(cuda_on_cpu.fake(values), reg_covar=reg_covar)
            agree(fit, fit_gmm(values, reg_covar=reg_covar), tolerance=1e-7)


def test_groups_ordered_once(cupy):
    values, groups = (cuda_on_cpu.fake(array) for array in losses(1_000, 3, seed=6))
    order = order_groups(groups, 3)
    agree(fit_gmm(values, order), fit_gmm(values, groups, 3), tolerance=0)


def test_device_finds_bad_input_and_the_host_names_it(cupy):
    values, groups = losses(50, 2, seed=7)
    bad_values, bad_groups = values.copy(), groups.copy()
    bad_values[[7, 9]], bad_groups[5] = np.nan, 2
    start = [np.zeros((2, 2)), np.ones((2, 2)), np.array([[0.5, 0.5], [0.5, 0.6]])]
    fake = cuda_on_cpu.fake
    with pytest.raises(ValueError, match=r"values: 2 of 50 are NaN or infinite, first at 7, 9"):
        fit_gmm(fake(bad_values), fake(groups), 2)
    with pytest.raises(ValueError, match=r"groups: expected ids .* got 2; 1 out of range, first at 5"):
        fit_gmm(fake(values), fake(bad_groups), 2)
    with pytest.raises(ValueError, match=r"init: .* weights \[0.5, 0.6\] for group 1"):
        fit_gmm(fake(values), fake(groups), 2, init=[fake(part) for part in start])
    fit = fit_gmm(fake(values), fake(groups), 2)
    with pytest.raises(ValueError, match=r"groups: expected ids"):
        fit.clean_probability(fake(values), fake(bad_groups))
    with pytest.raises(ValueError, match=r"groups: expected a cupy array, got numpy\.ndarray"):
        fit_gmm(fake(values), groups, 2)
    assert fit_gmm(fake(values[:0]), fake(groups[:0]), 2).fitted.tolist() == [False, False]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    num_samples=st.integers(1, 800), num_groups=st.integers(1, 8), seed=st.integers(0, 1_000), kind=st.integers(0, 2)
)
def test_random_cases(folder, num_samples, num_groups, seed, kind):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, num_samples)
    values = (rng.random, rng.standard_normal, lambda n: rng.exponential(size=n))[kind](num_samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cuda_on_cpu.FakeCupy(folder, seed))
        fit = fit_gmm(cuda_on_cpu.fake(values), cuda_on_cpu.fake(groups), num_groups)
    agree(fit, fit_gmm(values, groups, num_groups), tolerance=1e-9)


@pytest.mark.parametrize("multiprocessors", [1, 108, 132])
@pytest.mark.parametrize("num_samples", [0, 1, 50_000, 2_400_000])
@pytest.mark.parametrize("num_groups", [1, 14, 100, 1_000, 100_000])
def test_teams_are_all_resident(multiprocessors, num_samples, num_groups):
    teams, size = plan_teams(num_samples, num_groups, multiprocessors)
    assert teams >= 1
    assert size >= 1
    assert teams * size <= multiprocessors * BLOCKS_PER_MULTIPROCESSOR
    assert teams <= num_groups


@pytest.mark.parametrize("fails", ["import", "compiler"])
def test_without_cupy_mixtures_are_fitted_on_the_cpu(fails, monkeypatch, caplog):
    """CuPy is missing, or cannot compile the source; logged once, and the results stay on the GPU."""
    broken = None if fails == "import" else ModuleType("cupy")
    if broken is not None:
        broken.RawModule = failing_compiler
    monkeypatch.setitem(sys.modules, "cupy", broken)
    gmm_cupy.problem.cache_clear()
    values, groups = losses(900, 3, seed=4)
    with pretended_gpu():
        there = torch.from_numpy(values).to("cuda"), torch.from_numpy(groups).to("cuda")
        fits = [fit_gmm(*there, 3), fit_gmm(there[0], order_groups(there[1], 3))]
        posterior = fits[0].clean_probability(*there)
        assert posterior.is_cuda and fits[0].means.is_cuda
        expected = fit_gmm(values, groups, 3)
        for fit in fits:
            agree(fit, expected, tolerance=0)
        np.testing.assert_array_equal(posterior.cpu(), expected.clean_probability(values, groups))
    (record,) = caplog.records
    reason = "ModuleNotFoundError: import of cupy halted" if fails == "import" else "RuntimeError: no headers"
    assert f"fitted on the CPU, because CuPy cannot be used ({reason}" in record.getMessage()
    assert "pip install 'fastcpc[gpu]'" in record.getMessage()
    gmm_cupy.problem.cache_clear()


def failing_compiler(**_):
    raise RuntimeError("no headers\nin /usr/local/cuda")


@pytest.fixture
def _own_memory(request):
    torch.use_deterministic_algorithms(False)
    assert not gmm_cupy.problem()  # otherwise a CPU would compute what these tests compare


@pytest.mark.gpu
@pytest.mark.usefixtures("_own_memory")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_samples", "num_groups"), [(100, 1), (50_000, 1), (50_000, 100), (300_000, 14), (30_000, 1_000)]
)
def test_device_equals_numpy_form(dtype, num_samples, num_groups):
    values, groups = (torch.from_numpy(array) for array in losses(num_samples, num_groups, seed=1))
    values = values.to(dtype)
    expected = fit_gmm(values.double().numpy(), groups.numpy(), num_groups)
    there = values.cuda(), groups.cuda()
    fit = fit_gmm(*there, num_groups)
    agree(fit, expected, tolerance=1e-9)
    posterior = fit.clean_probability(*there)
    assert posterior.is_cuda
    np.testing.assert_allclose(
        posterior.cpu(), expected.clean_probability(values.double().numpy(), groups.numpy()), rtol=1e-6, atol=1e-9
    )
    again = fit_gmm(*there, num_groups)
    for name in FIELDS:
        assert torch.equal(getattr(fit, name).nan_to_num(), getattr(again, name).nan_to_num())


@pytest.mark.gpu
@pytest.mark.usefixtures("_own_memory")
def test_torch_stream_is_honoured():
    """Values that a busy side stream is still to write; a fit on another stream would see the old ones."""
    values, groups = (torch.from_numpy(array).cuda() for array in losses(50_000, 10, seed=2))
    expected = fit_gmm(values, groups, 10)
    late = torch.zeros_like(values)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        late.copy_(values)
        fit = fit_gmm(late, groups, 10)
    torch.cuda.synchronize()
    assert torch.equal(fit.means, expected.means)


@pytest.mark.gpu
@pytest.mark.usefixtures("_own_memory")
def test_cupy_in_cupy_out():
    import cupy

    values, groups = losses(5_000, 3, seed=3)
    fit = fit_gmm(cupy.asarray(values), cupy.asarray(groups), 3)
    assert isinstance(fit.means, cupy.ndarray)
    np.testing.assert_allclose(fit.means.get(), fit_gmm(values, groups, 3).means, rtol=1e-9)
