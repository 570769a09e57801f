"""One of the two networks with its optimisers, partition and loss history."""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Part:
    """One thing that a learner owns: how it is saved as plain values and loaded.

    in_pass: whether a training pass changes it, besides what a snapshot holds.
    """

    save: Callable[[], Any]
    load: Callable[[Any], None]
    in_pass: bool = False


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

    def parts(self) -> dict[str, "Part"]:
        """Everything a learner owns besides the weights, under the keys of a checkpoint's ``members``.

        The one list of a learner's state: checkpoints, snapshots and exchanges between ranks are made from it.
        """
        return {
            "optimizer": Part(self.optimizer.state_dict, lambda state: load_momentum(self.optimizer, state)),
            "cpc_optimizer": Part(
                self.cpc_optimizer.state_dict, lambda state: load_momentum(self.cpc_optimizer, state)
            ),
            "scaler": Part(self.scaler.state_dict, self.scaler.load_state_dict),
            "history": self._tensor("history_LN"),
            "sums": self._tensor("sums", in_pass=True),
            "restores": Part(lambda: self.rollbacks, lambda value: setattr(self, "rollbacks", value), in_pass=True),
            "partition": Part(self._save_partition, self._load_partition),
        }

    def snapshot(self) -> dict[str, Any]:
        """A copy of what training steps change: the state to which a pass with non-finite losses is rolled back."""
        return {
            "scaler": self.scaler.state_dict(),
            "network": {name: value.detach().clone() for name, value in self.network.state_dict().items()},
            "momentum": [
                buffer.clone() if isinstance(buffer := self.optimizer.state[p].get("momentum_buffer"), Tensor) else None
                for p in self._parameters()
            ],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Restore a snapshot, which may be on another device."""
        self.scaler.load_state_dict(snapshot["scaler"])
        self.network.load_state_dict(snapshot["network"])
        for parameter, momentum in zip(self._parameters(), snapshot["momentum"], strict=True):
            self.optimizer.state[parameter].clear()
            if momentum is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum_for(parameter, momentum)

    def export_pass(self) -> dict[str, Any]:
        """A copy of everything that a training pass changes, for the ranks that did not train this network."""
        return {"trained": self.snapshot()} | {name: part.save() for name, part in self.parts().items() if part.in_pass}

    def import_pass(self, exported: dict[str, Any]) -> None:
        """Load what ``export_pass`` returned on another rank."""
        self.restore(exported["trained"])
        for name, part in self.parts().items():
            if part.in_pass:
                part.load(exported[name])

    def state(self) -> dict[str, Any]:
        """Everything but the network's weights, as tensors and plain values."""
        return {name: part.save() for name, part in self.parts().items()}

    def load(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Load a checkpoint's weights and state."""
        self.network.load_state_dict(weights)
        for name, part in self.parts().items():
            part.load(state[name])

    def is_finite(self) -> bool:
        """Whether the pass's sums and all weights and statistics are numbers; reads the device once."""
        tensors = [self.sums, *(t for t in self.network.state_dict().values() if t.is_floating_point())]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _tensor(self, name: str, *, in_pass: bool = False) -> "Part":
        """A tensor attribute, loaded onto this learner's device."""
        return Part(
            lambda: getattr(self, name), lambda value: setattr(self, name, value.to(self.device)), in_pass=in_pass
        )

    def _save_partition(self) -> list[Tensor] | None:
        return None if self.partition is None else [self.partition.clean_N, self.partition.clean_prob_N]

    def _load_partition(self, saved: list[Tensor] | None) -> None:
        self.partition = None if saved is None else Partition(*(part.to(self.device) for part in saved))
