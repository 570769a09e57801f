"""Between two log points nothing asks the device for a value: on a GPU each such question stops the queue of work.

Without a GPU two guards stand for it. Everything that comes of a batch is a tensor that refuses to become a number, an
array, or a shape that depends on values; and no floating value of any tensor at all is read, those of weights and
gradients included. What is drawn on the CPU (orders, seeds) is integers.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_stages import CONFIG, small_stages
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastcpc.data.feed import Batch
from fastcpc.engine.stages import semi_supervised, warm_up

ASKING = {
    "item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero",
    "masked_select", "unique", "equal", "allclose", "is_nonzero",
}  # fmt: skip


class Refusing(Tensor):
    """A tensor, and all that is computed from it, that does not tell its values."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        asks = name in ASKING or (name == "__getitem__" and isinstance(args[1], Tensor) and args[1].dtype == torch.bool)
        if asks and any(isinstance(arg, Refusing) for arg in args):
            raise AssertionError(f"{name} waits for the device")
        return super().__torch_function__(func, types, args, kwargs or {})


class NoFloatIsRead(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_floating_point():
            raise AssertionError("a floating value is read: waits for the device")
        return func(*args, **(kwargs or {}))


def refusing(batches: Iterator[Batch], total: int) -> Iterator[tuple[int, Batch]]:
    for step, batch in enumerate(batches):
        views = tuple(view.as_subclass(Refusing) for view in batch.views)
        yield step, Batch(batch.index.as_subclass(Refusing), views)


def test_training_reads_no_value() -> None:
    training, (own, other) = small_stages()
    with NoFloatIsRead():
        assert warm_up(own, training, refusing, epoch=0, start=0) == 8
        assert semi_supervised(own, other, training, refusing, epoch=1, start=0) == 4
    assert all(isinstance(loss, Refusing) for loss, _ in own.steps)  # the guard reached the losses


@pytest.mark.parametrize(
    "question",
    [lambda loss: loss.item(), lambda loss: float(loss), lambda loss: loss.cpu(), lambda loss: bool(loss > 0),
     lambda loss: loss[None][loss[None] > 0], lambda loss: loss.tolist()],
)  # fmt: skip
def test_the_guard_sees_every_question(question: Callable[[Tensor], Any]) -> None:
    loss = torch.rand(3).as_subclass(Refusing).square().mean()
    with pytest.raises(AssertionError, match="waits for the device"):
        question(loss)
    with NoFloatIsRead(), pytest.raises(AssertionError, match="waits for the device"):
        torch.rand(()).item()


@pytest.mark.gpu
def test_training_never_waits_for_a_gpu() -> None:
    training, (own, other) = small_stages(replace(CONFIG, device="cuda"))

    def watched(batches: Iterator[Batch], total: int) -> Iterator[tuple[int, Batch]]:
        """After the first step, which may set things up."""
        for step, batch in enumerate(batches):
            yield step, batch
            torch.cuda.set_sync_debug_mode("error")

    for stage in (
        lambda: warm_up(own, training, watched, epoch=0, start=0),
        lambda: semi_supervised(own, other, training, watched, epoch=1, start=0),
    ):
        try:
            stage()
        finally:
            torch.cuda.set_sync_debug_mode("default")
