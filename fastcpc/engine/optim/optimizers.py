"""Optimisers of the networks (``optim.name``, ``optim.backend``) and of the prototype head."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fastcpc.config.schema import OptimConfig, TrainConfig
from fastcpc.engine.optim.apex import APEX_HELP, apex_problem, fused_sgd
from fastcpc.errors import InputError

Groups = list[Parameter] | list[dict[str, Any]]  # as torch's optimisers take them

LR_SCALE = "lr_scale"  # key of a parameter group: factor of the learning rate


def build_sgd(parameters: Groups, train: TrainConfig) -> torch.optim.SGD:
    """SGD with momentum and weight decay in one fused update."""
    return torch.optim.SGD(
        parameters, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay, fused=True
    )


def build_adamw(parameters: Groups, train: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) in one fused update, with the betas and eps of torch."""
    return torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay, fused=True)


def build_optimizer(
    parameters: Groups, train: TrainConfig, optim: OptimConfig, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of the networks by ``optim.name`` and ``optim.backend``.

    auto is the fused form of torch: no measurement says that another is faster. InputError for apex where it cannot be
    used. Both backends of SGD hold the same state and make the same update.
    """
    if optim.backend != "apex":
        return build_head_optimizer(parameters, train, optim)
    if device.type != "cuda":
        raise InputError(
            f"optim.backend=apex: apex's optimisers run on a GPU, and this run is on the {device}; {APEX_HELP}"
        )
    problem = apex_problem()
    if problem:
        raise InputError(f"optim.backend=apex: {problem}; {APEX_HELP}")
    return fused_sgd(parameters, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay)


def build_head_optimizer(parameters: Groups, train: TrainConfig, optim: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of the prototype head by ``optim.name``, always of torch."""
    return build_adamw(parameters, train) if optim.name == "adamw" else build_sgd(parameters, train)


def clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Drop all gradients; not every optimiser's own ``zero_grad`` can."""
    for parameter in parameters_of(optimizer):
        parameter.grad = None


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate, multiplied by the factor of the group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SCALE, 1.0)


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Scale all gradients together so that their norm is at most max_norm; never waits for the device.

    Gradients with NaN or inf stay so, and the check after the pass finds them.
    """
    torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), max_norm)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Parameter]:
    """All parameters of an optimiser in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


# ---- state ----


def load_momentum(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state and learning rate of an optimiser of either backend, from any device.

    The final cleaning uses the last epoch's learning rate. The other settings stay this optimiser's own.
    """
    groups = [
        {**own, "lr": saved["lr"]}
        for own, saved in zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in moments(values).items():
            values[name] = momentum_for(parameter, value)


def copied_momentum(optimizer: torch.optim.Optimizer) -> list[Any]:
    """A copy of the state per parameter, None where there is none yet: of SGD a tensor, of AdamW tensors by name."""
    copies: list[Any] = []
    for parameter in parameters_of(optimizer):
        tensors = {name: value for name, value in optimizer.state[parameter].items() if isinstance(value, Tensor)}
        copied = {name: value.clone() for name, value in tensors.items()}
        copies.append(copied.get("momentum_buffer", copied) if copied else None)
    return copies


def restore_momentum(optimizer: torch.optim.Optimizer, copies: Iterable[Any]) -> None:
    """Load ``copied_momentum``, whatever device it is on."""
    for parameter, copied in zip(parameters_of(optimizer), copies, strict=True):
        own = optimizer.state[parameter]
        own.clear()
        named = {"momentum_buffer": copied} if isinstance(copied, Tensor) else copied or {}
        own.update({name: value.to(parameter.device, copy=True) for name, value in named.items()})
        own.update({name: momentum_for(parameter, value) for name, value in moments(named).items()})


def moments(state: dict[str, Any]) -> dict[str, Tensor]:
    """What an optimiser keeps per element of a parameter: the momentum of SGD, both moments of AdamW."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor) and name != "step"}


def momentum_for(parameter: Tensor, momentum: Tensor) -> Tensor:
    """A copy of a parameter's momentum, on its device and laid out as it is.

    Another device's network may have another memory format (channels_last). Fused updates read a parameter and its
    momentum in memory order: with different formats a GPU raises an error and a CPU mixes up elements.
    """
    return torch.empty_like(parameter, requires_grad=False).copy_(momentum)
