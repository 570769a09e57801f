"""What a number of processes makes of the settings: the global batch, its share a rank, the learning rate."""

from dataclasses import replace

from fastcpc import ranks
from fastcpc.config.schema import Config
from fastcpc.errors import InputError


def for_ranks(config: Config) -> Config:
    """The settings with ``train.batch_size`` as the global batch and ``train.lr`` as it will be used.

    InputError: a global batch that the ranks cannot share equally.
    """
    train, size = config.train, ranks.size()
    if size == 1:
        return config
    if config.parallel.batch_size == "per_rank":
        lr = train.lr * size if config.parallel.lr_scaling == "linear" else train.lr
        return replace(config, train=replace(train, batch_size=train.batch_size * size, lr=lr))
    if train.batch_size % size:
        lower = train.batch_size // size * size
        raise InputError(
            f"train.batch_size={train.batch_size}: {size} processes cannot share it equally; choose a multiple such as "
            f"{lower or size}, or count it for each process (parallel.batch_size=per_rank)"
        )
    return config


def describe_ranks(config: Config) -> str:
    """The processes, the global batch and the learning rate in words; config: as ``for_ranks`` returns it."""
    train, size, parallel = config.train, ranks.size(), config.parallel
    if size == 1:
        return f"1 process, batch {train.batch_size}, lr {train.lr:g}"
    norm = "over all ranks" if parallel.sync_batchnorm else "a rank by itself"
    mixup = "over all ranks" if parallel.mixup == "global" else "a rank by itself"
    return (
        f"{size} processes ({ranks.backend()}), global batch {train.batch_size} = {size} x {train.batch_size // size}, "
        f"lr {train.lr:g}; BatchNorm {norm}, MixUp {mixup}"
    )
