"""Batch size and learning rate as functions of the number of ranks, and their description for the log."""

from dataclasses import replace

from fastcpc.config.schema import Config
from fastcpc.distributed.process_group import backend, world_size
from fastcpc.distributed.subgroups import own_subgroup
from fastcpc.errors import InputError


def scale_to_ranks(config: Config) -> Config:
    """The settings with the global batch as ``train.batch_size`` and the scaled learning rate as ``train.lr``.

    The global batch is that of the ranks which train a network together. InputError: they cannot share it equally.
    """
    train, size = config.train, ranks_per_network()
    if size == 1:
        return config
    if config.parallel.batch_size == "per_rank":
        lr = train.lr * size if config.parallel.lr_scaling == "linear" else train.lr
        return replace(config, train=replace(train, batch_size=train.batch_size * size, lr=lr))
    if train.batch_size % size:
        lower = train.batch_size // size * size
        whose = "each half's " if size < world_size() else ""
        raise InputError(
            f"train.batch_size={train.batch_size}: {whose}{size} processes cannot share it equally; choose a multiple "
            f"such as {lower or size}, or count it for each process (parallel.batch_size=per_rank)"
        )
    return config


def ranks_per_network() -> int:
    """How many ranks train a network together: all, or half of them (``parallel.mode=co``)."""
    with own_subgroup():
        return world_size()


def describe_ranks(config: Config) -> str:
    """Processes, global batch and learning rate for the start line; config: as ``scale_to_ranks`` returns it."""
    train, size, parallel = config.train, ranks_per_network(), config.parallel
    in_halves = size < world_size()
    if world_size() == 1:
        processes = f"1 process, batch {train.batch_size}"
    else:
        each = f", {size} for each network" if in_halves else ""
        processes = f"{world_size()} processes ({backend()}){each}"
        processes += f", global batch {train.batch_size} = {size} x {train.batch_size // size}"
    text = f"{processes}, lr {train.lr:g}"
    if size > 1:
        whole = "over a network's ranks" if in_halves else "over all ranks"
        norm, mixup = (
            whole if shared else "per rank" for shared in (parallel.sync_batchnorm, parallel.mixup == "global")
        )
        text += f"; BatchNorm {norm}, MixUp {mixup}"
    return text
