"""The Triton prototype loss: its numerics through the interpreter, every configuration compiled, what it refuses.

What only a GPU can show (numerics on the device, launches, graphs, memory, far offsets) is marked ``gpu``.
"""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from offline_compile import ARCHITECTURES, SHARED_LIMITS, compile_offline, configurations
from pretend_gpu import pretended_gpu

from fastcpc.kernels import prototype_loss, prototype_scores
from fastcpc.kernels.prototype_torch import PrototypeLossTorch
from fastcpc.kernels.prototype_triton import MAX_SPLITS, PROGRAMS, choose_tiles, plan_backward

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DEVICE_TESTS = Path(__file__).with_name("prototype_device.py")


@pytest.fixture(autouse=True)
def _no_extra_launches_on_a_gpu(request):
    """Filling fresh memory with NaN, as deterministic algorithms do, would count as launches."""
    if request.node.get_closest_marker("gpu"):
        torch.use_deterministic_algorithms(False)


def run_device_tests(*arguments, **environment):
    """Runs ``prototype_device.py`` in a process of its own; its report is the message of a failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(DEVICE_TESTS), *arguments]
    root = DEVICE_TESTS.parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=root)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("part", ["test_grid", "not test_grid"])
def test_numerics_through_the_interpreter(part):
    run_device_tests("-k", part, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
@pytest.mark.parametrize(
    "configuration", [c for architecture in ARCHITECTURES for c in configurations(architecture)], ids=str
)
def test_compiles_without_spills(configuration):
    resources = compile_offline(configuration)
    assert resources.spilled == 0
    assert resources.registers <= 255
    assert resources.shared <= SHARED_LIMITS[configuration.architecture]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_choice_of_tiles_is_compiled(dtype):
    """Launches choose what ``test_compiles_without_spills`` compiles, on devices in between too."""
    known = {(c.constants, c.options) for architecture in ARCHITECTURES for c in configurations(architecture)}
    dims, classes, capabilities = (1, 64, 128, 129, 300, 512), (2, 128, 129, 10_000), (80, 86, 89, 90, 100, 120)
    for dim, num_classes, grads, capability in product(dims, classes, (False, True), capabilities):
        tiles = choose_tiles(dtype, dim, num_classes, grads, capability)
        assert tiles.single == (dim <= tiles.columns and dtype != torch.float32)
        for backward, loop in ((False, "PARTS"), (True, "BLOCKS")):
            constants = tiles.constants() | {"CHUNKS": int(tiles.single), "TILES": 0, loop: 0}
            assert (tuple(constants.items()), tuple(tiles.options(backward).items())) in known


@pytest.mark.parametrize("num_rows", [1, 64, 65, 1024, 65_536, 1_000_000])
@pytest.mark.parametrize("num_classes", [2, 100, 1000, 10_000])
def test_plan_covers_all_rows_and_bounds_partial_sums(num_rows, num_classes):
    tiles = choose_tiles(torch.bfloat16, 128, num_classes, True, 90)
    plan = plan_backward(num_rows, num_classes, 128, tiles, True, True)
    covered = plan.num_splits * plan.blocks_per_split * tiles.rows
    assert covered >= num_rows
    assert covered - num_rows < plan.blocks_per_split * tiles.rows  # no run is empty
    assert plan.num_splits <= MAX_SPLITS
    assert plan.num_places * plan.num_splits <= PROGRAMS + plan.num_places  # tiles of partial sums, whatever B
    assert plan.row_programs * tiles.rows >= num_rows


def arguments(device="cpu", dtype=torch.float32, dim=8):
    labels = torch.tensor([0, 1, 2], device=device)
    clean = torch.tensor([True, False, True], device=device)
    return torch.ones(3, dim, device=device, dtype=dtype), torch.ones(3, dim, device=device, dtype=dtype), labels, clean


def test_triton_is_refused_where_it_cannot_run():
    with pytest.raises(ValueError, match="backend: triton cannot run here: tensors are on cpu, not on a CUDA device"):
        prototype_loss(*arguments(), backend="triton")


def test_auto_is_plain_pytorch_on_a_cpu():
    args = arguments()
    assert torch.equal(prototype_loss(*args), PrototypeLossTorch.apply(*args, None, 1.0, 1 / 3, None))


@pytest.mark.parametrize(
    ("dim", "installed", "reason"), [(8, False, "triton is not installed"), (513, True, "rows have 513 elements")]
)
def test_fallback_on_a_gpu_is_logged_once(dim, installed, reason, monkeypatch, caplog):
    module = sys.modules["fastcpc.kernels.prototype_loss"]  # in the package a function has the module's name
    module._log_fallback.cache_clear()
    if not installed:
        monkeypatch.setattr(module, "triton", None)
    with pretended_gpu():
        args = arguments("cuda", dim=dim)
        for _ in range(2):
            prototype_loss(*args)
            prototype_scores(*args[:3])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"by plain PyTorch instead of Triton: {reason}" in record.getMessage()


@pytest.mark.gpu
@pytest.mark.parametrize("part", ["test_grid", "not test_grid"])  # processes of their own, which may run side by side
def test_numerics_on_the_device(part):
    run_device_tests("-k", part)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "dim", "message"), [(torch.float64, 8, "float64"), (torch.float32, 513, "513")])
def test_device_rejects_unsupported_input(dtype, dim, message):
    args = arguments("cuda", dtype, dim)
    with pytest.raises(ValueError, match=message):
        prototype_loss(*args, backend="triton")
    assert prototype_loss(*args).isfinite()  # auto takes plain PyTorch


@pytest.mark.gpu
@pytest.mark.parametrize(("num_rows", "num_classes"), [(1024, 10), (1024, 100), (65_536, 128)])
def test_two_launches_no_synchronisation_and_a_graph(num_rows, num_classes):
    embeddings = torch.randn(num_rows, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    prototypes = torch.randn(num_classes, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, num_classes, (num_rows,), device="cuda")
    clean = torch.rand(num_rows, device="cuda") < 0.5
    pseudo = torch.where(clean, -1, labels)
    one = torch.ones((), device="cuda")

    def step():
        loss = prototype_loss(embeddings, prototypes, labels, clean, pseudo, backend="triton")
        return loss, *torch.autograd.grad(loss, (embeddings, prototypes), one)

    eager = step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert len(kernels) <= 2, [event.name for event in kernels]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    for first, second in zip(eager, captured, strict=True):
        assert torch.equal(first, second)


@pytest.mark.gpu
def test_memory_grows_with_rows_and_classes_not_with_their_product():
    num_rows, num_classes, dim = 65_536, 10_000, 128
    embeddings = torch.randn(num_rows, dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    prototypes = torch.randn(num_classes, dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, num_classes, (num_rows,), device="cuda")
    clean = torch.rand(num_rows, device="cuda") < 0.5
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    prototype_loss(embeddings, prototypes, labels, clean, backend="triton").backward()
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 16 * (num_rows + num_classes) * dim  # B x K in bfloat16 alone would be 8 times this


@pytest.mark.gpu
def test_offsets_beyond_32_bits():
    """5 million rows of 512: the last rows begin after more than 2^31 elements."""
    num_rows, dim = 5_000_000, 512
    embeddings = torch.zeros(num_rows, dim, device="cuda", dtype=torch.bfloat16)
    embeddings[-1] = 1.0
    prototypes = torch.full((3, dim), 0.01, device="cuda", dtype=torch.bfloat16)
    labels = torch.zeros(num_rows, dtype=torch.int64, device="cuda")
    scores = prototype_scores(embeddings, prototypes, labels)
    assert float(scores[-1]) == pytest.approx(1 / (1 + 2.718281828 ** (-512 * float(prototypes[0, 0]))), rel=1e-5)
    assert float(scores[0]) == 0.5
    embeddings.requires_grad_()
    clean = torch.zeros(num_rows, dtype=torch.bool, device="cuda")
    prototype_loss(embeddings, prototypes, labels, clean, backend="triton").backward()
    assert float(embeddings.grad[-1, 0]) == pytest.approx(float(scores[-1]) * 0.01 / num_rows, rel=2e-2)
