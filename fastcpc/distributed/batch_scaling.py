"""Batch size and learning rate as functions of the world size."""

from dataclasses import dataclass, replace

import torch

from fastcpc import distributed
from fastcpc.config.schema import Config
from fastcpc.errors import InputError


@dataclass(frozen=True)
class ModeTraits:
    """What a ``parallel.mode`` means for the ranks.

    halves: half of the ranks train each network. whose, share, scope, note: its words in messages and the start line.
    """

    halves: bool
    whose: str
    share: str
    scope: str
    note: str


MODES = {
    "data": ModeTraits(halves=False, whose="", share="", scope="over all ranks", note=""),
    "co": ModeTraits(
        halves=True,
        whose="each half's ",
        share=", {} for each network",
        scope="over a network's ranks",
        note="; parallel.mode=co: both networks are trained at once, each with the other as it was when the epoch "
        "began, which is not Algorithm 1",
    ),
}


def connect_groups(config: Config, device: torch.device) -> None:
    """Create the process groups that the settings ask for. InputError: an odd number of ranks for ``mode=co``."""
    distributed.raise_on_all_ranks(lambda: _check_halves(config))
    distributed.connect(device, config.parallel.timeout)
    if MODES[config.parallel.mode].halves:
        distributed.connect_subgroups()


def _check_halves(config: Config) -> None:
    if MODES[config.parallel.mode].halves and distributed.world_size() > 1 and distributed.world_size() % 2:
        raise InputError(
            "parallel.mode=co: half of the processes train each network, and "
            f"{distributed.world_size()} have no half; start an even number, or one"
        )


def scale_to_ranks(config: Config) -> Config:
    """The settings with ``train.batch_size`` as the global batch and ``train.lr`` scaled to it.

    The global batch is shared by the ranks that train one network. InputError: it cannot be divided equally.
    """
    train, size = config.train, ranks_per_network()
    if size == 1:
        return config
    if config.parallel.batch_size == "per_rank":
        lr = train.lr * size if config.parallel.lr_scaling == "linear" else train.lr
        return replace(config, train=replace(train, batch_size=train.batch_size * size, lr=lr))
    if train.batch_size % size:
        lower, whose = train.batch_size // size * size, MODES[config.parallel.mode].whose
        raise InputError(
            f"train.batch_size={train.batch_size}: {whose}{size} processes cannot share it equally; choose a multiple "
            f"such as {lower or size}, or count it for each process (parallel.batch_size=per_rank)"
        )
    return config


def ranks_per_network() -> int:
    """How many ranks train one network: all, or half of them with ``parallel.mode=co``."""
    with distributed.own_subgroup():
        return distributed.world_size()


def describe_ranks(config: Config) -> str:
    """Processes, global batch and learning rate in words. config: as ``scale_to_ranks`` returns it."""
    train, size, parallel, mode = config.train, ranks_per_network(), config.parallel, MODES[config.parallel.mode]
    if distributed.world_size() == 1:
        group = f" ({distributed.backend()})" if distributed.has_group() else ""
        processes = f"1 process{group}, batch {train.batch_size}"
    else:
        processes = f"{distributed.world_size()} processes ({distributed.backend()}){mode.share.format(size)}"
        processes += f", global batch {train.batch_size} = {size} x {train.batch_size // size}"
    text = f"{processes}, lr {train.lr:g}"
    if size > 1:
        norm, mixup = (
            mode.scope if shared else "per rank" for shared in (parallel.sync_batchnorm, parallel.mixup == "global")
        )
        text += f"; BatchNorm {norm}, MixUp {mixup}"
    return text + mode.note
