"""Guesses of the fixed network for several steps at once: the right ones for each step, also after a resume."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from small_stages import CONFIG, BareSteps, small_stages
from torch import Tensor

from fastcpc.data.loaders.base import Batch
from fastcpc.engine import train_epoch
from fastcpc.engine.train_epoch import semi_supervised, steps_ahead
from fastcpc.models.folding import fold_batchnorm
from fastcpc.semisup.fixed_guesses import FixedGuesses

LABELLED, UNLABELLED, STEPS = 3, 4, 7
WEIGHT = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))


def stream(start: int) -> Iterator[Batch]:
    for step in range(start, STEPS):
        views = torch.randn(4, LABELLED + UNLABELLED, 3, 2, 2, generator=torch.Generator().manual_seed(step))
        yield Batch(torch.arange(LABELLED + UNLABELLED), tuple(views))


def guesses(steps: int, start: int, shapes: list[torch.Size], num_views: int = 2) -> list[Tensor]:
    def guess(images: Tensor) -> Tensor:
        shapes.append(images.shape)
        return images.flatten(1) @ WEIGHT

    ahead = FixedGuesses(guess, LABELLED, steps, start, num_views)
    return [ahead.next_logits() for _ in ahead.batches(stream(start))]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10])
def test_each_step_gets_the_logits_of_its_own_images(steps: int) -> None:
    shapes: list[torch.Size] = []
    found = guesses(steps, 0, shapes)
    assert len(found) == STEPS and set(shapes) == {torch.Size([2 * UNLABELLED * steps, 3, 2, 2])}
    assert len(shapes) == -(-STEPS // steps)
    for logits, batch in zip(found, stream(0), strict=True):
        unlabelled = torch.cat([view[LABELLED:] for view in batch.views[:2]])
        torch.testing.assert_close(logits, unlabelled.flatten(1) @ WEIGHT)
    for start in range(1, STEPS):
        assert all(map(torch.equal, guesses(steps, start, shapes), found[start:]))
    assert len(set(shapes)) == 1


def test_one_view() -> None:
    shapes: list[torch.Size] = []
    for logits, batch in zip(guesses(3, 0, shapes, num_views=1), stream(0), strict=True):
        torch.testing.assert_close(logits, batch.views[0][LABELLED:].flatten(1) @ WEIGHT)
    assert set(shapes) == {torch.Size([UNLABELLED * 3, 3, 2, 2])}


def test_a_group_is_fetched_when_it_begins() -> None:
    fetched = []

    def watched() -> Iterator[Batch]:
        for step, batch in enumerate(stream(0)):
            fetched.append(step)
            yield batch

    batches = FixedGuesses(lambda images: images, LABELLED, 3, 0).batches(watched())
    next(batches)
    assert fetched == [0, 1, 2]
    list(islice(batches, 3))
    assert fetched == [0, 1, 2, 3, 4, 5]


def trained(monkeypatch: pytest.MonkeyPatch, steps: int, start: int = 0, *, folded: bool = False) -> Any:
    config = replace(CONFIG, semisup=replace(CONFIG.semisup, batches_per_epoch=4))
    training, (own, other) = small_stages(config)
    monkeypatch.setattr(train_epoch, "steps_ahead", lambda *_: steps)
    copy = fold_batchnorm(other.network.eval()) if folded else None
    monkeypatch.setattr(train_epoch.TrainContext, "folded", lambda *_: copy)
    other.network.load_state_dict(own.network.state_dict())  # what was folded first is loaded again
    assert semi_supervised(own, other, training, BareSteps(), epoch=2, start=start) == 4
    return own.steps, own.network.state_dict()


def test_a_pass_with_folded_guesses_ahead_differs_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    (plain, expected), (ahead, found) = trained(monkeypatch, 1), trained(monkeypatch, 3, folded=True)
    losses = [torch.stack([loss for loss, _ in steps]) for steps in (plain, ahead)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert [index.tolist() for _, index in plain] == [index.tolist() for _, index in ahead]


def test_where_guesses_are_made_ahead() -> None:
    training, _ = small_stages()
    on_cpu, on_gpu = training.numerics, replace(training.numerics, device=torch.device("cuda"))
    images = replace(CONFIG, data=replace(CONFIG.data, name="imagefolder", root="unused"), model=CONFIG.model)
    assert steps_ahead(CONFIG, on_cpu, 128) == 1 and steps_ahead(CONFIG, on_gpu, 128) == 8
    one_view = replace(CONFIG, semisup=replace(CONFIG.semisup, views=1))
    assert steps_ahead(one_view, on_gpu, 128) == 16
    assert steps_ahead(CONFIG, on_gpu, 2000) == 1 and steps_ahead(images, on_gpu, 32) == 1
    assert training.folded(_[0].network) is None
