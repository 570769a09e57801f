"""The learning rate at a point of a run: ``train.schedule`` and ``train.warmup_steps``.

It is a function of the position in the run, so no checkpoint holds it, and a run resumes with the same rate. The
position counts epochs with their fraction: the number of steps of an epoch changes with the partition.
"""

import math

from fastcpc.config.schema import TrainConfig
from fastcpc.errors import InputError

CYCLE_START, CYCLE_END = 1 / 25, 1e-4  # of the peak, and of the start, as torch's OneCycleLR has them
CYCLE_PEAK = 0.3  # share of the run after which the rate is at its peak


def steps_of_epoch(num_samples: int, train: TrainConfig) -> int:
    """Steps of an epoch of cross entropy, for one network: on all samples, or on the pool."""
    steps = -(-num_samples // train.batch_size)
    return min(steps, train.pool_batches) if train.pool_batches else steps


def check_warmup_steps(train: TrainConfig, steps_per_epoch: int) -> None:
    """InputError where the learning rate would still rise at the end of the run."""
    total = train.epochs * steps_per_epoch
    if train.warmup_steps >= total:
        raise InputError(
            f"train.warmup_steps={train.warmup_steps}: must be below the {total} steps of the run (train.epochs="
            f"{train.epochs} of {steps_per_epoch} steps); lower it"
        )


def learning_rate(progress: float, train: TrainConfig, steps_per_epoch: int = 1) -> float:
    """Learning rate at a point of the run.

    progress: epochs from 0 with their fraction. steps_per_epoch: of ``steps_of_epoch``.
    step: lr, divided by lr_drop_factor from lr_drop_epoch on. one_cycle: from lr / 25 up to lr at 30 % of the run,
    then down to lr / 250,000, along half cosines (Smith and Topin, 2019). The values are those of torch's OneCycleLR.
    cosine: lr, then down to 0 along half a cosine (Loshchilov and Hutter, 2017), which begins after the rise.
    Rise (step and cosine): step s, from 0, has (s + 1) / warmup_steps of the rate (Goyal et al., 2017). A step counts
    as 1 / steps_per_epoch of an epoch, also where an epoch has another number of steps.
    """
    if train.schedule == "one_cycle":
        return _one_cycle(min(progress / train.epochs, 1.0), train.lr)
    rise = train.warmup_steps / steps_per_epoch
    rate = _cosine(progress, rise, train) if train.schedule == "cosine" else _step(progress, train)
    if progress >= rise:
        return rate
    return rate * min((progress * steps_per_epoch + 1) / train.warmup_steps, 1.0)


def _step(progress: float, train: TrainConfig) -> float:
    return train.lr / (train.lr_drop_factor if progress >= train.lr_drop_epoch else 1.0)


def _cosine(progress: float, rise: float, train: TrainConfig) -> float:
    share = (progress - rise) / (train.epochs - rise)
    return _half_cosine(train.lr, 0.0, min(max(share, 0.0), 1.0))


def _one_cycle(share: float, lr: float) -> float:
    if share < CYCLE_PEAK:
        return _half_cosine(lr * CYCLE_START, lr, share / CYCLE_PEAK)
    return _half_cosine(lr, lr * CYCLE_START * CYCLE_END, (share - CYCLE_PEAK) / (1 - CYCLE_PEAK))


def _half_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
