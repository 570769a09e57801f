"""In which order, and on which ranks, the two networks are trained within an epoch: ``parallel.mode``.

Alternating (``data``) is Algorithm 1: network 1, then network 2 with the trained network 1. CoTraining (``co``) trains
both at once, each on half of the ranks and with the other as it was when the epoch began. One process does the work of
both halves in turn, with the same results.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import torch

from fastcpc import distributed
from fastcpc.engine.learner import Learner
from fastcpc.engine.loggers.run_log import RunLog
from fastcpc.engine.run_state import RunState
from fastcpc.engine.step_loop import StepLoop, Stopped
from fastcpc.engine.train_epoch import PassResult, TrainContext, finish_pass, start_note, train_epoch


class Schedule(ABC):
    """The training stages of an epoch.

    snapshot: the state before the present stage, to which a pass with non-finite losses is rolled back. It is a part of
    checkpoints inside a stage.
    """

    def __init__(
        self, learners: Sequence[Learner], training: TrainContext, step_loop: StepLoop, run_state: RunState, log: RunLog
    ) -> None:
        self.learners, self.training = learners, training
        self.step_loop, self.run_state, self.log = step_loop, run_state, log
        self.snapshot: dict[str, Any] = {}

    @abstractmethod
    def stages(self, epoch: int, *, guesses: bool) -> list[Callable[[], list[PassResult]]]:
        """The training stages of an epoch in order; each trains, and returns the results of its passes.

        guesses: whether a network trains with the other's guesses (MixMatch); False in warm-up. A stage resumes at the
        run's present step, and raises Stopped on a stop request.
        """

    def _start(self, own: Learner, other: Learner | None, epoch: int) -> None:
        own.sums.zero_()
        note = start_note(own, other, self.training, epoch)
        if note:
            self.log.info(note)


class Alternating(Schedule):
    """Network 1, then network 2, on all ranks."""

    def stages(self, epoch: int, *, guesses: bool) -> list[Callable[[], list[PassResult]]]:
        """Two stages, one per network; the other network is fixed."""
        first, second = self.learners
        return [
            lambda: [self._train(first, second if guesses else None, epoch)],
            lambda: [self._train(second, first if guesses else None, epoch)],
        ]

    def _train(self, own: Learner, other: Learner | None, epoch: int) -> PassResult:
        if self.run_state.step == 0:
            self.snapshot = own.snapshot()
            self._start(own, other, epoch)
        try:
            steps = train_epoch(own, other, self.training, self.step_loop, epoch, self.run_state.step)
        except Stopped:
            distributed.all_reduce_mean(own.sums, "losses")  # ranks resume from one common sum
            raise
        return finish_pass(own, other, self.training, self.snapshot, epoch, steps)


class CoTraining(Schedule):
    """Both networks at once, each on half of the ranks; the halves exchange their networks at the end."""

    def stages(self, epoch: int, *, guesses: bool) -> list[Callable[[], list[PassResult]]]:
        """One stage for both networks."""
        return [lambda: self._train(epoch, guesses=guesses)]

    def _train(self, epoch: int, *, guesses: bool) -> list[PassResult]:
        """The rest of both passes, from ``run_state.done`` on; network 1's result first.

        Afterwards, also when Stopped is raised, every rank holds both networks with their optimisers.
        """
        run_state = self.run_state
        if not run_state.done:
            run_state.done = [0] * len(self.learners)
            self.snapshot = {f"net{learner.number}": learner.snapshot() for learner in self.learners}
            for own, other in zip(self.learners, reversed(self.learners), strict=True):
                self._start(own, other if guesses else None, epoch)
        numbers = list(range(len(self.learners))) if distributed.world_size() == 1 else [distributed.subgroup_index()]
        images = run_state.record["images"]
        try:
            steps = {i: self._own_pass(i, epoch, guesses=guesses) for i in numbers}
        except Stopped:
            with distributed.own_subgroup():
                for i in numbers:
                    distributed.all_reduce_mean(self.learners[i].sums, "losses")  # ranks resume from one common sum
            self._exchange(images, None)
            run_state.step = sum(run_state.done)
            raise
        results = distributed.raise_on_all_ranks(
            lambda: [self._finish(i, epoch, steps[i], guesses=guesses) for i in numbers]
        )
        other_result = self._exchange(images, results[0])
        if other_result is None:
            return results
        return [results[0], other_result] if distributed.subgroup_index() == 0 else [other_result, results[0]]

    def _own_pass(self, i: int, epoch: int, *, guesses: bool) -> int:
        """The pass of network i; the other network has its state from the start of the stage meanwhile."""
        own, other, run_state = self.learners[i], self.learners[1 - i], self.run_state
        present = other.snapshot()
        other.restore(self.snapshot[f"net{other.number}"])
        run_state.step = run_state.done[i]
        try:
            with distributed.own_subgroup():
                return train_epoch(
                    own, other if guesses else None, self.training, self.step_loop, epoch, run_state.step
                )
        finally:
            run_state.done[i] = run_state.step
            other.restore(present)

    def _finish(self, i: int, epoch: int, steps: int, *, guesses: bool) -> PassResult:
        own, other = self.learners[i], self.learners[1 - i] if guesses else None
        with distributed.own_subgroup():
            return finish_pass(own, other, self.training, self.snapshot[f"net{own.number}"], epoch, steps)

    def _exchange(self, images_before: int, result: PassResult | None) -> PassResult | None:
        """Send the own network to the other half and load its network; returns the result of its pass.

        result: of the own pass; None where it has not ended. With one process nothing is done.
        """
        if distributed.world_size() == 1:
            return None
        i, run_state = distributed.subgroup_index(), self.run_state
        buffer = io.BytesIO()
        torch.save(
            {
                "learner": self.learners[i].export_pass(),
                "done": run_state.done[i],
                "images": run_state.record["images"] - images_before,
                "result": None if result is None else astuple(result),
            },
            buffer,
        )
        data = distributed.swap_between_subgroups(buffer.getvalue(), "networks")
        received = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        self.learners[1 - i].import_pass(received["learner"])
        run_state.done[1 - i] = received["done"]
        run_state.record["images"] += received["images"]
        if received["result"] is None:
            return None
        return PassResult(*received["result"])


SCHEDULES: dict[str, type[Schedule]] = {"data": Alternating, "co": CoTraining}  # by parallel.mode
