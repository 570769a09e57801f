"""A network with its optimisers, loss history and partition: one of the two that a run trains.

``Learner.parts`` lists everything a learner owns. Checkpoints, rollbacks and the exchange between ranks read and load
these parts by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastcpc import distributed
from fastcpc.cleaner.finite import momentum_of, network_parts, non_finite
from fastcpc.cleaner.partition import Partition
from fastcpc.config.schema import Config
from fastcpc.data.rng import fold
from fastcpc.distributed.gradient_sync import GradientSync, average_over_ranks
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.optim.optimizers import (
    build_head_optimizer,
    build_optimizer,
    clear_gradients,
    clip_gradients,
    copied_momentum,
    load_momentum,
    restore_momentum,
    set_learning_rate,
)
from fastcpc.engine.optim.parameter_groups import parameter_groups
from fastcpc.engine.optim.weight_average import WeightAverage
from fastcpc.models.build import build_network
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm
from fastcpc.models.layer_groups import freeze_layers
from fastcpc.models.network import Network
from fastcpc.models.sync_batchnorm import running_statistics, synchronise_batchnorm

LOSS_NAMES = ("total", "labelled", "unlabelled", "penalty")
# Names of ``Learner.parts``, which are keys of state.pt: see checkpoint/format.py.
IN_CHECKPOINT = ("optimizer", "cpc_optimizer", "scaler", "history", "sums", "restores", "partition")
IN_SNAPSHOT = ("scaler", "network", "momentum")
IN_EXPORT = ("sums", "restores")  # beside a snapshot
# "noise_bound" is in state.pt only with cleaner.guard=auto, after the first cleaning.
HEAD = "head."  # how the names of the weights of the prototype head begin
WEIGHTS = "weights"  # in state.pt, only with ema.decay: the weights in training, beside those of the average


@dataclass(frozen=True)
class StatePart:
    """One thing that a learner owns. read: its present value, as tensors and plain values. load: takes such a value,
    whatever device it is on."""

    read: Callable[[], Any]
    load: Callable[[Any], object]


class Learner:
    """A network with all that trains it.

    number: 1 or 2. partition: the last valid partition for this network, None before the first. rollbacks: consecutive
    passes that were rolled back. sums: (4,) float64 on the device, the epoch's losses by LOSS_NAMES, read once per
    epoch. steps: loss and samples of each step of the running pass in this process, on the device; read only to name
    a bad batch.
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
        self.average = WeightAverage(self.network, config.ema.decay) if config.ema.decay else None
        synced = distributed.has_group() and config.parallel.sync_batchnorm
        if synced:
            synchronise_batchnorm(self.network, numerics.device)
        elif numerics.compiles_steps:
            apply_ghost_batchnorm(self.network)
        freeze_layers(self.network, config.model)
        numerics.prepare(self.network)
        if self.average is not None:
            self.average.prepare(self.network, numerics)
        self._gradients = GradientSync(self.network.backbone_parameters())
        # each rank's own statistics are averaged, so that all ranks hold the same network
        self._statistics = [] if synced else running_statistics(self.network)
        self.optimizer = build_optimizer(
            parameter_groups(self.network, config), config.train, config.optim, numerics.device
        )
        self.cpc_optimizer = build_head_optimizer(self.network.prototype_parameters(), config.train, config.optim)
        self._cpc_lr = config.cpc.lr
        self._clip_norm = config.optim.clip_norm
        self.scaler = numerics.scaler()
        self.device = numerics.device
        self.history_LN = torch.zeros(0, num_samples, device=self.device)
        self.partition: Partition | None = None
        self.noise_bound: Tensor | None = None
        self.rollbacks = 0
        self.sums = torch.zeros(len(LOSS_NAMES), dtype=torch.float64, device=self.device)
        self.steps: list[tuple[Tensor, Tensor]] = []

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate of both optimisers; that of the prototypes is cpc.lr where it is set."""
        set_learning_rate(self.optimizer, lr)
        set_learning_rate(self.cpc_optimizer, self._cpc_lr or lr)

    def update(self, losses: tuple[Tensor, ...], index_B: Tensor) -> None:
        """One optimiser step on losses[0] of the samples index_B; adds all losses to ``sums``. Never waits for the
        device."""
        self.scaler.scale(losses[0]).backward()
        self._gradients.finish()
        average_over_ranks(self._statistics, "batchnorm")
        if self._clip_norm:
            self.scaler.unscale_(self.optimizer)
            clip_gradients(self.optimizer, self._clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        clear_gradients(self.optimizer)  # now: the next replay of a CUDA graph overwrites their memory
        kept = torch.stack([loss.detach() for loss in losses])  # a copy: a replay overwrites the losses, too
        self.sums[: len(losses)] += kept
        self.steps.append((kept[0], index_B))

    def non_finite_parts(self) -> list[str]:
        """Which parts contain NaN or infinity after a pass, in words; reads the device once."""
        momentum = momentum_of(self.optimizer)
        return non_finite({"losses": [self.sums], **network_parts(self.network), "momentum": momentum})

    @property
    def eval_network(self) -> Network:
        """The network that scores, guesses, is evaluated and exported: the average where there is one."""
        return self.network if self.average is None else self.average.network

    # ---- state ----

    def parts(self) -> dict[str, StatePart]:
        """Everything this learner owns, by name. A new part needs an entry here and its name in IN_..."""
        return {
            "network": StatePart(lambda: copied_weights(self.network), self.network.load_state_dict),
            "average": StatePart(lambda: copied_weights(self.eval_network), self.eval_network.load_state_dict),
            "optimizer": StatePart(self.optimizer.state_dict, partial(load_momentum, self.optimizer)),
            "momentum": StatePart(partial(copied_momentum, self.optimizer), partial(restore_momentum, self.optimizer)),
            "cpc_optimizer": StatePart(self.cpc_optimizer.state_dict, partial(load_momentum, self.cpc_optimizer)),
            "scaler": StatePart(self.scaler.state_dict, self.scaler.load_state_dict),
            "history": StatePart(lambda: self.history_LN, lambda value: self._set("history_LN", value.to(self.device))),
            "sums": StatePart(lambda: self.sums, lambda value: self._set("sums", value.to(self.device))),
            "restores": StatePart(lambda: self.rollbacks, lambda value: self._set("rollbacks", value)),
            "partition": StatePart(self._partition_tensors, self._load_partition),
            "noise_bound": StatePart(lambda: self.noise_bound, self._load_noise_bound),
        }

    def state(self) -> dict[str, Any]:
        """The state of a checkpoint, all but the weights of ``eval_network``."""
        state = self._read(IN_CHECKPOINT if self.noise_bound is None else (*IN_CHECKPOINT, "noise_bound"))
        return state if self.average is None else state | {WEIGHTS: copied_weights(self.network)}

    def load(self, weights: dict[str, Tensor], state: Mapping[str, Any], *, new_head: bool = False) -> None:
        """Load a checkpoint's weights and ``state``; an average starts at the weights where they are none.

        new_head: this learner keeps its own prototype head, which has other shapes than the checkpoint's.
        """
        state = {"network": state.get(WEIGHTS, weights), "noise_bound": None, **state}
        if new_head:
            own_head = {name: value for name, value in copied_weights(self.network).items() if name.startswith(HEAD)}
            state |= {"network": _without_head(state["network"]) | own_head}
            state |= {"cpc_optimizer": self.cpc_optimizer.state_dict()}
            weights = _without_head(weights) | own_head
        self._load(state, ("network", *IN_CHECKPOINT, "noise_bound"))
        if self.average is not None:
            self._load({"average": weights}, ("average",))

    def snapshot(self) -> dict[str, Any]:
        """A copy of what a pass changes, to roll back to."""
        return self._read(IN_SNAPSHOT if self.average is None else (*IN_SNAPSHOT, "average"))

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Load a snapshot, whatever device it is on."""
        self._load(snapshot, IN_SNAPSHOT)
        if self.average is not None:
            self._load({"average": snapshot.get("average", snapshot["network"])}, ("average",))

    def export_pass(self) -> dict[str, Any]:
        """Everything that a pass changes, for the ranks that did not train this network."""
        return {"trained": self.snapshot(), **self._read(IN_EXPORT)}

    def import_pass(self, exported: Mapping[str, Any]) -> None:
        """Load another rank's ``export_pass``."""
        self.restore(exported["trained"])
        self._load(exported, IN_EXPORT)

    def _read(self, names: Iterable[str]) -> dict[str, Any]:
        parts = self.parts()
        return {name: parts[name].read() for name in names}

    def _load(self, values: Mapping[str, Any], names: Iterable[str]) -> None:
        parts = self.parts()
        for name in names:
            parts[name].load(values[name])

    def _set(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def _partition_tensors(self) -> list[Tensor] | None:
        return None if self.partition is None else [self.partition.clean_N, self.partition.clean_prob_N]

    def _load_partition(self, tensors: Sequence[Tensor] | None) -> None:
        self.partition = None if tensors is None else Partition(*(tensor.to(self.device) for tensor in tensors))

    def _load_noise_bound(self, bound: Tensor | None) -> None:
        self.noise_bound = None if bound is None else bound.to(self.device)


def _without_head(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith(HEAD)}


def copied_weights(network: Network) -> dict[str, Tensor]:
    """A copy of everything in the state dict of a network."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
