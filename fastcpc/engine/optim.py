"""Optimisers and the learning-rate schedule.

The learning rate is a function of the run's progress, so no checkpoint holds it. NVIDIA's apex is imported only with
``optim.backend=apex``, after its files show that it is NVIDIA's: PyPI's ``apex`` is another project.
"""

import importlib
import math
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fastcpc.config.schema import TrainConfig
from fastcpc.errors import InputError

APEX_HELP = "docs/performance.md says how to build it; optim.backend=torch needs nothing"
CYCLE_START, CYCLE_END = 1 / 25, 1e-4  # of the peak, and of the start, as torch's OneCycleLR has them
CYCLE_PEAK = 0.3  # share of the run after which the rate is at its peak


def build_sgd(parameters: Iterable[Parameter], train: TrainConfig) -> torch.optim.SGD:
    """SGD with momentum and weight decay in one fused update."""
    return torch.optim.SGD(
        list(parameters), lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay, fused=True
    )


def build_optimizer(
    parameters: Iterable[Parameter], train: TrainConfig, backend: str, device: torch.device
) -> torch.optim.Optimizer:
    """The networks' SGD by ``optim.backend``; auto is torch's fused form: no measurement says that another is faster.

    InputError for apex where it cannot be used. Both forms hold the same state and make the same update.
    """
    if backend != "apex":
        return build_sgd(parameters, train)
    if device.type != "cuda":
        raise InputError(
            f"optim.backend=apex: apex's optimisers run on a GPU, and this run is on the {device}; {APEX_HELP}"
        )
    problem = apex_problem()
    if problem:
        raise InputError(f"optim.backend=apex: {problem}; {APEX_HELP}")
    return fused_sgd(list(parameters), lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay)


def clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Drop all gradients; not every optimiser's own ``zero_grad`` can."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def load_momentum(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the momentum and learning rate of an optimiser of either backend, from any device.

    The final cleaning uses the last epoch's learning rate. The other settings stay this optimiser's own."""
    groups = [
        {**own, "lr": saved["lr"]}
        for own, saved in zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, gathered in optimizer.state.items():
        if isinstance(gathered.get("momentum_buffer"), Tensor):
            gathered["momentum_buffer"] = momentum_for(parameter, gathered["momentum_buffer"])


def momentum_for(parameter: Tensor, momentum: Tensor) -> Tensor:
    """A copy of a parameter's momentum, on its device and laid out as it is.

    Another device's network may have another memory format (channels_last). Fused updates read a parameter and its
    momentum in memory order: with different formats a GPU raises an error and a CPU mixes up elements.
    """
    return torch.empty_like(parameter, requires_grad=False).copy_(momentum)


def learning_rate(progress: float, train: TrainConfig) -> float:
    """Learning rate at a point of the run, in epochs from 0 with their fraction.

    step: lr, divided by lr_drop_factor from lr_drop_epoch on. one_cycle: from lr / 25 up to lr at 30 % of the run,
    then down to lr / 250,000, along half cosines (Smith and Topin, 2019). The values are those of torch's OneCycleLR.
    """
    if train.schedule == "step":
        return train.lr / (train.lr_drop_factor if progress >= train.lr_drop_epoch else 1.0)
    share = min(progress / train.epochs, 1.0)
    if share < CYCLE_PEAK:
        return _half_cosine(train.lr * CYCLE_START, train.lr, share / CYCLE_PEAK)
    return _half_cosine(train.lr, train.lr * CYCLE_START * CYCLE_END, (share - CYCLE_PEAK) / (1 - CYCLE_PEAK))


def _half_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def apex_problem() -> str:
    """Why NVIDIA's fused optimisers cannot be used here, in words for a message; empty where they can."""
    spec = find_spec("apex")
    if spec is None:
        return "NVIDIA's apex is not installed"
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if not any((place / "optimizers" / "fused_sgd.py").is_file() for place in places):
        where = places[0] if places else spec.origin
        return f"the package apex in {where} is not NVIDIA's (PyPI has another project of that name)"
    if find_spec("amp_C") is None:
        return "this apex was built without its CUDA kernels (amp_C; build it with APEX_CUDA_EXT=1)"
    return ""


def fused_sgd(parameters: Sequence[torch.nn.Parameter], **settings: float) -> torch.optim.Optimizer:
    """apex's FusedSGD of these float32 parameters. Only where ``apex_problem`` finds none."""
    made: Any = importlib.import_module("apex.optimizers").FusedSGD(parameters, **settings)
    assert isinstance(made, torch.optim.Optimizer)
    return made
