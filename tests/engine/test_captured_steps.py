"""Every step of a pass makes the same sequence of operations: what CUDA graphs record once can be replayed.

The pretended GPU executes the steps. Loading of batches is not recorded: it happens outside of the replayed functions.
A graph would repeat the numbers of its first step. So numbers are equal in all steps, too, and what varies is a tensor.
The learning rate is a number: the optimiser is no part of the graphs.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from pretend_gpu import FUSED, pretended_gpu
from small_stages import CONFIG, BareSteps, small_stages
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastcpc.data.loaders.base import Batch
from fastcpc.engine import train_epoch
from fastcpc.engine.train_epoch import semi_supervised, warm_up
from fastcpc.semisup.fixed_guesses import FixedGuesses

Operations = list[tuple[str, tuple[Any, ...]]]


class Recorder(TorchDispatchMode):
    """Names of operations with shapes and types of tensors, and numbers, while ``log`` is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.log: Operations | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.log is not None:
            leaves = tree_leaves((args, kwargs or {}))
            forms = [_form(leaf) for leaf in leaves]
            self.log.append((str(func), () if func in FUSED else tuple(forms)))
        return func(*args, **(kwargs or {}))


def _form(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype, leaf.stride()
    return leaf if isinstance(leaf, int | float) else type(leaf)


def test_steps_of_a_pass_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    semisup = replace(CONFIG.semisup, batches_per_epoch=5)
    config = replace(CONFIG, device="cuda", precision="bf16", semisup=semisup)
    steps: list[Operations] = []
    groups: list[Operations] = []
    monkeypatch.setattr(train_epoch, "steps_ahead", lambda *_: 2)  # three groups, the last one not full
    with pretended_gpu(), Recorder() as recorder:
        guess_group = FixedGuesses._guess_group

        def guessing(self: FixedGuesses) -> Any:
            """A group's guesses belong to no step. Its images are joined before the replayed function."""
            outer, recorder.log = recorder.log, None
            honest = self._guess

            def recorded(images: Tensor) -> Tensor:
                recorder.log = []
                logits = honest(images)
                groups.append(recorder.log)
                recorder.log = None
                return logits

            self._guess = recorded
            made = list(guess_group(self))
            self._guess, recorder.log = honest, outer
            return made

        monkeypatch.setattr(FixedGuesses, "_guess_group", guessing)

        def watched(batches: Iterator[Batch]) -> Iterator[tuple[int, Batch]]:
            for step in count():
                recorder.log = None
                batch = next(batches, None)
                if batch is None:
                    return
                recorder.log = []
                yield step, batch
                steps.append(recorder.log)

        training, (one, two) = small_stages(config)
        warm_up(one, training, BareSteps(watched), epoch=0, start=0)  # type: ignore[arg-type]
        warm_up_steps, steps[:] = steps[1:], []  # the first step creates the momentum
        for own, other in ((one, two), (one, two)):
            semi_supervised(own, other, training, BareSteps(watched), epoch=2, start=0)  # type: ignore[arg-type]
    assert len(warm_up_steps) > 2 and all(step == warm_up_steps[0] for step in warm_up_steps)
    assert len(steps) == 10 and all(step == steps[0] for step in steps) and len(steps[0]) > 200
    assert len(groups) == 6 and all(group == groups[0] for group in groups) and len(groups[0]) > 5
