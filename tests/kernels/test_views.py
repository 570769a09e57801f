"""The view kernel: its values through the interpreter, its compilation, and when ``MemoryLoader`` uses it.

What only a GPU can show is marked ``gpu``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from offline_compile import ARCHITECTURES, SHARED_LIMITS, compile_view_offline, view_configurations
from pretend_gpu import pretended_gpu

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.augment import fused, fused_check
from fastcpc.data.augment.batched import GROUPS, StrongAugmenter
from fastcpc.data.augment.batched_views import BatchedViews
from fastcpc.data.augment.policies import WeakPolicy, strong_policy
from fastcpc.data.loaders.memory import MemoryLoader
from fastcpc.data.rng import generator
from fastcpc.kernels.views import launch
from fastcpc.kernels.views.kernel import OPERATIONS

DEVICE_TESTS = Path(__file__).with_name("views_device.py")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
check_kernel = fused_check.kernel_problem  # the pretended GPU replaces it


def run_device_tests(**environment):
    """Runs ``views_device.py`` in a process of its own; its report is the message of a failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(DEVICE_TESTS)]
    root = DEVICE_TESTS.parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=root)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_values_through_the_interpreter():
    run_device_tests(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
@pytest.mark.parametrize(
    "configuration", [c for a in ARCHITECTURES for c in view_configurations(a, largest=False)], ids=str
)
def test_compiles_without_spills(configuration):
    resources = compile_view_offline(configuration)
    assert resources.spilled == 0
    assert resources.registers <= 128  # two programs per multiprocessor, at least
    assert resources.shared <= SHARED_LIMITS[configuration.architecture]


def test_codes_are_the_groups_of_the_operations():
    assert OPERATIONS == GROUPS


@pytest.mark.parametrize("strong", ["autoaugment", "randaugment", "geometric"])
@pytest.mark.parametrize("style", ["torchvision", "augdmix"])
def test_the_check_applies_every_operation_at_every_step_both_ways(style, strong):
    policy = strong_policy(AugmentConfig(strong=strong, style=style))
    check = fused_check.one_by_one(policy)
    assert check.num_steps == policy.num_steps and check.style == style
    augmenter = StrongAugmenter(check, 32, CPU)
    entry_SB = augmenter.draw_entries(fused_check.NUM_IMAGES, generator(0, "views"))
    assert len((entry_SB // (2 * check.num_steps)).unique()) == len(check.rows)
    assert len(entry_SB.unique()) >= 0.95 * (len(augmenter.group_T) - 1)
    assert ((augmenter.group_T[entry_SB] > 0).sum(0) <= 1).all()
    drawn = {choice.op for row in policy.rows for choice in row}
    assert {choice.op for row in check.rows for choice in row} == drawn | {"Identity"}


def test_the_check_detects_other_values():
    """Other levels, places two pixels away, and all places one pixel away. One line may be at the next place."""
    size = 16
    expected = fused_check.example_images(3, size)[:4].float()
    for name in ("Brightness", "affine", "ShearX"):
        group_B = torch.full((4,), GROUPS.index(name))
        assert fused_check.wrong_operation(group_B, expected + 1.0, expected) == ""
        made = expected.clone()
        made[2] = made[2].roll(2, -1)
        problem = fused_check.wrong_operation(group_B, made, expected)
        assert f"of the pixels differ after {name}, in 1 of 4 views" in problem
        if name != "Brightness":
            shifted = torch.cat((expected[..., 1:], expected[..., -1:]), -1)
            problem = fused_check.wrong_operation(group_B, shifted, expected)
            assert f"of the pixels differ after {name}, in 4 of 4 views" in problem
    near = expected.clone()
    near[0, :, 3] = expected[0, :, 4]  # a line, as where a shear is half a pixel
    assert fused_check.wrong_operation(torch.full((4,), GROUPS.index("affine")), near, expected) == ""
    assert "after Invert, in 1 of 4 views" in fused_check.wrong_operation(
        torch.full((4,), GROUPS.index("Invert")), near, expected
    )


def plain_loader(caplog):
    """A loader on the pretended GPU with the honest check, twice, and the one warning."""
    caplog.clear()
    check_kernel.cache_clear()
    pixels = torch.zeros(9, 3, 8, 8, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_check, "kernel_problem", check_kernel)
        for _ in range(2):
            loader = MemoryLoader(
                pixels, (0.5,) * 3, (0.5,) * 3, WeakPolicy(True, 2), strong_policy(AugmentConfig()), GPU
            )
            assert isinstance(loader._views, BatchedViews)
            (batch,) = loader.stream([torch.arange(9)], ("weak", "strong"), 1)
            assert batch.views[1].is_cuda
    check_kernel.cache_clear()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    return record.getMessage()


def test_fallback_is_logged_once_with_its_reason(caplog, monkeypatch):
    start = "views on a GPU by plain PyTorch instead of Triton: "
    with pretended_gpu():
        monkeypatch.setattr(launch, "view_kernel", Broken())
        assert plain_loader(caplog) == start + "RuntimeError: ptxas failed"
        monkeypatch.setattr(launch, "view", lambda pixels, index, *_, **__: torch.zeros(len(index), 3, 8, 8).to("cuda"))
        assert plain_loader(caplog) == start + "its test views have other values"
        monkeypatch.setattr(launch, "CAPABILITY", (9, 1))
        assert "has a compute capability below 8.0" in plain_loader(caplog)
        monkeypatch.setattr(fused, "launch", None)
        assert plain_loader(caplog) == start + "triton is not installed"


class Broken:
    """A kernel that does not compile."""

    def __getitem__(self, grid):
        raise RuntimeError("ptxas failed\nmore lines")


def test_cpu_keeps_the_operations_of_torch(monkeypatch):
    monkeypatch.setattr(fused_check, "kernel_problem", None)  # is not called
    pixels = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
    assert isinstance(MemoryLoader(pixels, (0.5,), (0.5,), WeakPolicy(True, 2), None, CPU)._views, BatchedViews)


@pytest.mark.gpu
def test_values_on_the_device():
    run_device_tests()


@pytest.mark.gpu
@pytest.mark.parametrize("size", [8, 32, 64])
def test_loader_uses_the_kernel(size):
    pixels = torch.randint(256, (40, 3, size, size), dtype=torch.uint8)
    loader = MemoryLoader(pixels, (0.5,) * 3, (0.5,) * 3, WeakPolicy(True, 2), strong_policy(AugmentConfig()), GPU)
    assert isinstance(loader._views, fused.FusedViews)
    batches = [torch.arange(40), torch.arange(7)]
    list(loader.stream(batches, ("weak", "strong"), 1))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        list(loader.stream(batches[1:], ("weak", "weak", "strong", "strong"), 1))
        torch.cuda.synchronize()
    names = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert sum("view_kernel" in name for name in names) == 4
