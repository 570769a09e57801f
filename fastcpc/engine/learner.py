"""One of the two networks with all that trains it and all that a checkpoint must hold of it."""

from typing import Any

import torch
from torch import Tensor

from fastcpc import distributed
from fastcpc.cleaner.partition import Partition
from fastcpc.config.schema import Config
from fastcpc.data.rng import fold
from fastcpc.distributed.gradient_sync import GradientSync, average_over_ranks
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.optim import (
    build_optimizer,
    build_sgd,
    forget_gradients,
    load_momentum,
    momentum_for,
    set_learning_rate,
)
from fastcpc.models.build import build_network
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm
from fastcpc.models.sync_batchnorm import running_statistics, synchronise_batchnorm

LOSS_NAMES = ("total", "labelled", "unlabelled", "penalty")


class Learner:
    """A network, its optimisers, its loss history and its part of the data.

    number: 1 or 2. partition: the last good division of this network's training data, None before the first.
    restores: passes in a row that were taken back because their losses or weights were no numbers.
    sums: (4,) float64 on the device, the running epoch's losses by LOSS_NAMES, read once an epoch. steps: loss and
    samples of each step that this process has taken of the running pass, on the device; read only to name culprits.
    """

    def __init__(
        self,
        number: int,
        config: Config,
        numerics: Numerics,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        num_samples: int,
    ) -> None:
        self.number = number
        self.network = build_network(
            config.model,
            config.cpc,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            seed=fold(config.run.seed, "network", number),
        )
        synced = distributed.world_size() > 1 and config.parallel.sync_batchnorm
        if synced:
            synchronise_batchnorm(self.network, numerics.device)
        elif numerics.compiles_steps:
            apply_ghost_batchnorm(self.network)
        numerics.prepare(self.network)
        self._gradients = GradientSync(self.network.backbone_parameters())
        # statistics that each rank gathers by itself are averaged, so that all ranks hold the same network
        self._statistics = [] if synced else running_statistics(self.network)
        self.optimizer = build_optimizer(
            self.network.backbone_parameters(), config.train, config.optim.backend, numerics.device
        )
        self.cpc_optimizer = build_sgd(self.network.prototype_parameters(), config.train)
        self.scaler = numerics.scaler()
        self.device = numerics.device
        self.history_LN = torch.zeros(0, num_samples, device=self.device)
        self.partition: Partition | None = None
        self.rollbacks = 0
        self.sums = torch.zeros(len(LOSS_NAMES), dtype=torch.float64, device=self.device)
        self.steps: list[tuple[Tensor, Tensor]] = []

    def set_learning_rate(self, lr: float) -> None:
        """Learning rate of both optimisers from here on."""
        set_learning_rate(self.optimizer, lr)
        set_learning_rate(self.cpc_optimizer, lr)

    def update(self, losses: tuple[Tensor, ...], index_B: Tensor) -> None:
        """One optimiser step on the first of these losses, of the samples index_B; all of them are added to the epoch's
        sums. Never waits for the device."""
        self.scaler.scale(losses[0]).backward()
        self._gradients.finish()
        average_over_ranks(self._statistics, "batchnorm")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        forget_gradients(self.optimizer)  # now: a CUDA graph's next run overwrites what they lie in
        kept = torch.stack([loss.detach() for loss in losses])  # a copy: the same goes for the losses
        self.sums[: len(losses)] += kept
        self.steps.append((kept[0], index_B))

    def snapshot(self) -> dict[str, Any]:
        """A copy of what a training pass changes, to go back to when its losses stop being numbers."""
        return {
            "scaler": self.scaler.state_dict(),
            "network": {name: value.detach().clone() for name, value in self.network.state_dict().items()},
            "momentum": [
                buffer.clone() if isinstance(buffer := self.optimizer.state[p].get("momentum_buffer"), Tensor) else None
                for p in self._parameters()
            ],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may lie on another device."""
        self.scaler.load_state_dict(snapshot["scaler"])
        self.network.load_state_dict(snapshot["network"])
        for parameter, momentum in zip(self._parameters(), snapshot["momentum"], strict=True):
            self.optimizer.state[parameter].clear()
            if momentum is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum_for(parameter, momentum)

    def progress(self) -> dict[str, Any]:
        """A copy of all that a training pass changes, for the ranks that did not train this network."""
        return {"trained": self.snapshot(), "sums": self.sums, "restores": self.rollbacks}

    def import_pass(self, progress: dict[str, Any]) -> None:
        """What ``progress`` gave on another rank."""
        self.restore(progress["trained"])
        self.sums = progress["sums"].to(self.device)
        self.rollbacks = progress["restores"]

    def is_finite(self) -> bool:
        """Whether the pass's sums and all weights and statistics are numbers; reads the device once."""
        tensors = [self.sums, *(t for t in self.network.state_dict().values() if t.is_floating_point())]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def state(self) -> dict[str, Any]:
        """All but the network's weights, as tensors and plain values."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "cpc_optimizer": self.cpc_optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history_LN,
            "sums": self.sums,
            "restores": self.rollbacks,
            "partition": None if self.partition is None else [self.partition.clean_N, self.partition.clean_prob_N],
        }

    def load(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take up a checkpoint's weights and state."""
        self.network.load_state_dict(weights)
        load_momentum(self.optimizer, state["optimizer"])
        load_momentum(self.cpc_optimizer, state["cpc_optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history_LN = state["history"].to(self.device)
        self.sums = state["sums"].to(self.device)
        self.rollbacks = state["restores"]
        held = state["partition"]
        self.partition = None if held is None else Partition(held[0].to(self.device), held[1].to(self.device))
