"""The learning rate at points of a run, by value: cosine, the rise, and a rise that does not end."""

import math

import pytest
import torch

from fastcpc.config.schema import TrainConfig
from fastcpc.engine.optim.learning_rate import check_warmup_steps, learning_rate, steps_of_epoch
from fastcpc.errors import InputError


def test_cosine_by_value() -> None:
    train = TrainConfig(epochs=10, lr=0.4, schedule="cosine")
    got = [learning_rate(progress, train, 50) for progress in (0, 2.5, 5, 7.5, 10)]
    low, high = 0.2 * (1 - math.sqrt(0.5)), 0.2 * (1 + math.sqrt(0.5))
    assert got == pytest.approx([0.4, high, 0.2, low, 0.0])
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.4), T_max=500
    )
    rates = []
    for _ in range(500):
        rates.append(reference.get_last_lr()[0])
        reference.optimizer.step()
        reference.step()
    assert [learning_rate(step / 50, train, 50) for step in range(500)] == pytest.approx(rates)


def test_rise_by_value() -> None:
    """4 steps of 5 per epoch rise to lr; the cosine begins after them and ends with the run."""
    train = TrainConfig(epochs=4, lr=0.8, schedule="cosine", warmup_steps=4)
    got = [learning_rate(step / 5, train, 5) for step in range(21)]
    assert got[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert got[12] == pytest.approx(0.4) and got[20] == pytest.approx(0.0)
    assert sorted(got[4:], reverse=True) == got[4:]


def test_rise_before_a_drop() -> None:
    train = TrainConfig(epochs=4, lr=0.8, lr_drop_epoch=2, warmup_steps=10)
    assert [learning_rate(step / 5, train, 5) for step in (0, 4, 9, 10, 15)] == pytest.approx(
        [0.08, 0.4, 0.08 * 10, 0.08, 0.08]
    )


def test_a_step_of_a_longer_epoch_counts_less() -> None:
    """An epoch of 10 steps, where all samples are 5: the rate rises by half as much per step."""
    train = TrainConfig(epochs=4, lr=0.8, schedule="cosine", warmup_steps=8)
    got = [learning_rate(1 + step / 10, train, 5) for step in range(4)]
    assert got == pytest.approx([0.6, 0.65, 0.7, 0.75])


def test_steps_of_an_epoch() -> None:
    assert steps_of_epoch(100, TrainConfig(batch_size=32)) == 4
    assert steps_of_epoch(100, TrainConfig(batch_size=32, pool_batches=3)) == 3
    assert steps_of_epoch(100, TrainConfig(batch_size=32, pool_batches=9)) == 4


def test_a_rise_longer_than_the_run_is_an_error() -> None:
    check_warmup_steps(TrainConfig(epochs=3, warmup_steps=14), 5)
    with pytest.raises(InputError) as caught:
        check_warmup_steps(TrainConfig(epochs=3, warmup_steps=15), 5)
    assert str(caught.value) == (
        "train.warmup_steps=15: must be below the 15 steps of the run (train.epochs=3 of 5 steps); lower it"
    )
