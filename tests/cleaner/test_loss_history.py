import pytest
import torch

from fastcpc.cleaner.loss_history import append_history, check_finite, min_max
from fastcpc.errors import RunError


def test_min_max_by_hand() -> None:
    assert min_max(torch.tensor([2.0, 4.0, 3.0])).tolist() == [0.0, 1.0, 0.5]


def test_equal_losses_become_zero_not_nan() -> None:
    assert min_max(torch.full((4,), 7.0)).tolist() == [0.0] * 4


def test_min_max_reads_strided_and_half_precision_losses() -> None:
    losses = torch.tensor([0.0, 99.0, 4.0, 99.0, 8.0], dtype=torch.bfloat16)[::2]
    assert min_max(losses).tolist() == [0.0, 0.5, 1.0]


def test_history_keeps_the_last_epochs_oldest_first() -> None:
    history = torch.zeros(0, 2)
    for value in (1.0, 2.0, 3.0):
        history = append_history(history, torch.full((2,), value), length=2)
    assert history.tolist() == [[2.0, 2.0], [3.0, 3.0]]


def test_nan_losses_are_named() -> None:
    losses = torch.zeros(10)
    losses[3], losses[7] = torch.nan, torch.inf
    with pytest.raises(RunError, match=r"network 2: the loss of 2 of 10 training samples .*rows 3, 7"):
        check_finite(losses, 2)
    check_finite(torch.zeros(10), 1)
