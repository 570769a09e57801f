"""Optimisers and the learning-rate schedule, which is a function of the epoch alone and so needs no saving."""

from collections.abc import Iterable

import torch
from torch.nn import Parameter

from fastcpc.config.schema import TrainConfig


def build_sgd(parameters: Iterable[Parameter], train: TrainConfig) -> torch.optim.SGD:
    """SGD with momentum and weight decay in one fused update."""
    return torch.optim.SGD(
        list(parameters), lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay, fused=True
    )


def learning_rate(epoch: int, train: TrainConfig) -> float:
    """Learning rate of an epoch (from 0): lr, divided by lr_drop_factor from lr_drop_epoch on."""
    return train.lr / (train.lr_drop_factor if epoch >= train.lr_drop_epoch else 1.0)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
