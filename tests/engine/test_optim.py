"""The optimiser: apex and its namesake, one update by either backend, and the learning rate over a run."""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcpc.config.schema import OptimConfig, TrainConfig
from fastcpc.engine.optim.apex import apex_problem
from fastcpc.engine.optim.learning_rate import learning_rate
from fastcpc.engine.optim.optimizers import build_optimizer, build_sgd, load_momentum
from fastcpc.errors import InputError

GPU = torch.device("cuda")  # named only: what is built here updates tensors of the CPU
TRAIN = TrainConfig(lr=0.1, momentum=0.9, weight_decay=0.01)

# what apex documents of FusedSGD: v = momentum * v + g, p = p - lr * v; the first step takes v = g
FUSED_SGD = """
import torch

class FusedSGD(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False):
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                                      nesterov=nesterov))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad + group["weight_decay"] * p
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = g.clone()
                else:
                    state["momentum_buffer"] = group["momentum"] * state["momentum_buffer"] + g
                v = state["momentum_buffer"]
                p -= group["lr"] * (g + group["momentum"] * v if group["nesterov"] else v)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path where packages can be put; what was imported from there is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("apex", "amp_C")]:
        del sys.modules[name]


def put(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def put_nvidias(folder: Path, kernels: bool = True) -> None:
    put(folder, apex__optimizers__fused_sgd=FUSED_SGD)
    (folder / "apex" / "__init__.py").write_text("")
    (folder / "apex" / "optimizers" / "__init__.py").write_text("from .fused_sgd import FusedSGD\n")
    if kernels:
        put(folder, amp_C="")


def test_missing_apex_is_an_error() -> None:
    assert apex_problem() == "NVIDIA's apex is not installed"
    with pytest.raises(InputError, match=r"^optim\.backend=apex: NVIDIA's apex is not installed; docs/performance\.md"):
        build_optimizer([], TRAIN, OptimConfig(backend="apex"), GPU)


def test_unrelated_package_named_apex_is_rejected(packages: Path) -> None:
    (packages / "apex").mkdir()
    (packages / "apex" / "__init__.py").write_text("raise ImportError('pyramid')\n")
    assert apex_problem() == (
        f"the package apex in {packages / 'apex'} is not NVIDIA's (PyPI has another project of that name)"
    )
    assert "apex" not in sys.modules


def test_apex_without_kernels_is_an_error(packages: Path) -> None:
    put_nvidias(packages, kernels=False)
    assert "built without its CUDA kernels (amp_C" in apex_problem()


def test_apex_needs_a_gpu(packages: Path) -> None:
    put_nvidias(packages)
    with pytest.raises(InputError, match=r"optim\.backend=apex: apex's optimisers run on a GPU"):
        build_optimizer([], TRAIN, OptimConfig(backend="apex"), torch.device("cpu"))


def parameters() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((3, 4), (5,))]


def steps(optimizer: torch.optim.Optimizer, own: list[torch.nn.Parameter], first: int, last: int) -> None:
    for number in range(first, last):
        for parameter in own:
            draw = torch.Generator().manual_seed(number)
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()


def test_backends_make_equal_updates_and_share_their_state(packages: Path) -> None:
    put_nvidias(packages)
    by_apex, by_torch = parameters(), parameters()
    apex = build_optimizer(by_apex, TRAIN, OptimConfig(backend="apex"), GPU)
    plain = build_optimizer(by_torch, TRAIN, OptimConfig(), GPU)
    assert type(apex).__name__ == "FusedSGD" and type(plain) is torch.optim.SGD
    for number in range(4):  # the first step starts the momentum
        steps(apex, by_apex, number, number + 1)
        steps(plain, by_torch, number, number + 1)
        torch.testing.assert_close(by_apex, by_torch)
    swapped = parameters()
    for parameter, value in zip(swapped, by_apex, strict=True):
        parameter.data.copy_(value.data)
    resumed = build_sgd(swapped, TRAIN)
    load_momentum(resumed, copy.deepcopy(apex.state_dict()))
    assert resumed.param_groups[0]["fused"] is True
    steps(resumed, swapped, 4, 6)
    steps(apex, by_apex, 4, 6)
    torch.testing.assert_close(swapped, by_apex)
    back: Any = build_optimizer(parameters(), TRAIN, OptimConfig(backend="apex"), GPU)
    load_momentum(back, copy.deepcopy(resumed.state_dict()))
    assert len(back.state) == 2


def test_momentum_is_loaded_in_another_memory_layout() -> None:
    """A narrow network is channels_last on a GPU and not on a CPU, and a run may go from one to the other."""

    def wide(layout: torch.memory_format) -> list[torch.nn.Parameter]:
        draw = torch.Generator().manual_seed(7)
        return [torch.nn.Parameter(torch.randn(4, 3, 2, 5, generator=draw).contiguous(memory_format=layout))]

    stays, goes = wide(torch.contiguous_format), wide(torch.channels_last)
    there, here = build_sgd(stays, TRAIN), build_sgd(goes, TRAIN)
    steps(there, stays, 0, 2)
    with torch.no_grad():
        goes[0].copy_(stays[0])
    load_momentum(here, copy.deepcopy(there.state_dict()))
    steps(there, stays, 2, 4)
    for number in (2, 3):  # gradients have the strides of their parameters
        draw = torch.Generator().manual_seed(number)
        goes[0].grad = torch.randn(goes[0].shape, generator=draw).contiguous(memory_format=torch.channels_last)
        here.step()
    torch.testing.assert_close(goes, stays, check_stride=False)


@pytest.mark.parametrize("nesterov", [False, True])
def test_torch_update_equals_the_documented_one_of_apex(nesterov: bool, packages: Path) -> None:
    put_nvidias(packages)
    import apex.optimizers

    one, two = parameters(), parameters()
    settings: Any = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": nesterov}
    documented, fused = apex.optimizers.FusedSGD(one, **settings), torch.optim.SGD(two, fused=True, **settings)
    steps(documented, one, 0, 5)
    steps(fused, two, 0, 5)
    torch.testing.assert_close(one, two)


def test_one_cycle_schedule_by_value() -> None:
    train = TrainConfig(epochs=100, lr=0.5, schedule="one_cycle")
    got = [learning_rate(progress, train) for progress in (0, 15, 30, 65, 100)]
    low, middle = 0.5 / 25, 0.5 * (1 + 1 / 25) / 2
    assert got == pytest.approx([low, middle, 0.5, 0.5 * (1 + 1 / 250_000) / 2, 0.5 / 250_000])
    reference = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD(parameters(), lr=0.5), max_lr=0.5, total_steps=1001, cycle_momentum=False
    )
    rates = []
    for _ in range(1000):
        rates.append(reference.get_last_lr()[0])
        reference.optimizer.step()
        reference.step()
    # torch counts its steps a little otherwise
    assert [learning_rate(step / 10, train) for step in range(1000)] == pytest.approx(rates, rel=0.02, abs=1e-3)


def test_learning_rate_is_loaded_with_the_momentum() -> None:
    """The other settings stay those of the optimiser that loads."""
    saved = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5, momentum=0.9, weight_decay=0.1)
    own = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.2, momentum=0.9, weight_decay=0.3)
    load_momentum(own, saved.state_dict())
    assert (own.param_groups[0]["lr"], own.param_groups[0]["weight_decay"]) == (0.5, 0.3)
