"""``parallel.mode=co``: both networks are trained at once, half of the ranks each, and exchanged when the epoch ends.

Algorithm 1 trains network 1, and network 2 then guesses labels with the network 1 that came out of it. Here neither
waits for the other: each guesses with the other as it was when the epoch began. One process does both halves' work, one
after the other, with the same results.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastcpc import distributed
from fastcpc.engine.learner import Learner
from fastcpc.engine.rollback import PassResult, finish_pass, train_epoch
from fastcpc.engine.run_state import RunState
from fastcpc.engine.signals import Stopped
from fastcpc.engine.step_loop import StepLoop
from fastcpc.engine.train_epoch import TrainContext

Snapshots = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class CoTraining:
    """Both networks' passes of an epoch, side by side.

    snapshots: both networks ("net1", "net2") as they were when the stage began. guesses: whether a network is trained
    with the other's help; False in the warm-up.
    """

    learners: Sequence[Learner]
    training: TrainContext
    step_loop: StepLoop
    run_state: RunState
    snapshots: Snapshots
    epoch: int
    guesses: bool

    def run(self) -> list[PassResult]:
        """The rest of both passes, from ``course.done`` on; how they ended, network 1's first.

        Afterwards, also where Stopped is raised, every rank holds both networks with their optimisers.
        """
        own = list(range(len(self.learners))) if distributed.world_size() == 1 else [distributed.subgroup_index()]
        images = self.run_state.record["images"]
        steps: dict[int, int] = {}
        try:
            for i in own:
                steps[i] = self._own_pass(i)
        except Stopped:
            with distributed.own_subgroup():
                for i in own:
                    distributed.all_reduce_mean(self.learners[i].sums, "losses")  # one sum, which all take up again
            _exchange(self.learners, self.run_state, images, None)
            self.run_state.step = sum(self.run_state.done)
            raise
        ends = distributed.raise_on_all_ranks(lambda: [self._end(i, steps[i]) for i in own])
        others = _exchange(self.learners, self.run_state, images, ends[0])
        return ends if others is None else [ends[0], others] if distributed.subgroup_index() == 0 else [others, ends[0]]

    def _own_pass(self, i: int) -> int:
        """The pass of one network, beside which the other stands as it was when the stage began."""
        own, other, run_state = self.learners[i], self.learners[1 - i], self.run_state
        present = other.snapshot()
        other.restore(self.snapshots[f"net{other.number}"])
        run_state.step = run_state.done[i]
        try:
            with distributed.own_subgroup():
                guide = other if self.guesses else None
                return train_epoch(own, guide, self.training, self.step_loop, self.epoch, run_state.step)
        finally:
            run_state.done[i] = run_state.step
            other.restore(present)

    def _end(self, i: int, steps: int) -> PassResult:
        own, other = self.learners[i], self.learners[1 - i] if self.guesses else None
        with distributed.own_subgroup():
            return finish_pass(own, other, self.training, self.snapshots[f"net{own.number}"], self.epoch, steps)


def _exchange(
    learners: Sequence[Learner], run_state: RunState, images_before: int, end: PassResult | None
) -> PassResult | None:
    """Hand the own network to the other half, and take up its network; returns how that one's pass ended.

    end: of the own pass; None where it has not ended. With one process nothing is done.
    """
    if distributed.world_size() == 1:
        return None
    i = distributed.subgroup_index()
    own_images = run_state.record["images"] - images_before
    buffer = io.BytesIO()
    torch.save(
        {
            "member": learners[i].progress(),
            "done": run_state.done[i],
            "images": own_images,
            "end": None if end is None else [end.num_labelled, list(end.means), end.note],
        },
        buffer,
    )
    received = torch.load(
        io.BytesIO(distributed.swap_between_subgroups(buffer.getvalue(), "networks")),
        map_location="cpu",
        weights_only=True,
    )
    learners[1 - i].import_pass(received["member"])
    run_state.done[1 - i] = received["done"]
    run_state.record["images"] += received["images"]
    if received["end"] is None:
        return None
    num_labelled, means, note = received["end"]
    return PassResult(num_labelled, tuple(means), note)
