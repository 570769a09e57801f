"""``parallel.mode=co``: both networks train at once, each on half of the ranks, and are exchanged at the epoch's end.

Algorithm 1 trains network 1 first; the trained network 1 then guides network 2. Here each network is guided by the
other as it was when the stage began. One process trains both, one after the other, with the same results.
"""

import io
from collections.abc import Sequence

import torch

from fastcpc import distributed
from fastcpc.engine.learner import Learner
from fastcpc.engine.run_state import RunState
from fastcpc.engine.step_loop import Stopped
from fastcpc.engine.train_epoch import Alternating, PassResult, Schedule, Stage, finish_pass, train_epoch
from fastcpc.errors import InputError

Pairs = Sequence[tuple[Learner, Learner | None]]


class CoTraining(Schedule):
    """Both networks' passes of an epoch in one stage; ``RunState.done`` counts the steps of each."""

    note = (
        "; parallel.mode=co: both networks are trained at once, each with the other as it was when the epoch began, "
        "which is not Algorithm 1"
    )

    @classmethod
    def check_ranks(cls) -> None:
        if distributed.world_size() > 1 and distributed.world_size() % 2:
            raise InputError(
                "parallel.mode=co: half of the processes train each network, and "
                f"{distributed.world_size()} have no half; start an even number, or one"
            )

    @classmethod
    def connect_ranks(cls) -> None:
        distributed.connect_subgroups()

    def stages(self, epoch: int, *pairs: tuple[Learner, Learner | None]) -> list[Stage]:
        return [("train", lambda: self.train_both(pairs, epoch))]

    def train_both(self, pairs: Pairs, epoch: int) -> None:
        """Train the rest of both passes, from ``RunState.done`` on.

        Afterwards, also if Stopped is raised, every rank holds both networks with their optimisers.
        """
        run_state = self.run_state
        if not run_state.done:
            run_state.done = [0] * len(pairs)
            run_state.snapshot = {_key(own): self.begin_pass(own, other, epoch) for own, other in pairs}
        learners = [own for own, _ in pairs]
        images = run_state.record["images"]
        trained_here = range(len(pairs)) if distributed.world_size() == 1 else [distributed.subgroup_index()]
        steps: dict[int, int] = {}
        try:
            for i in trained_here:
                steps[i] = self._train_one(pairs, i, epoch)
        except Stopped:
            with distributed.own_subgroup():
                for i in trained_here:
                    distributed.all_reduce_mean(learners[i].sums, "losses")  # one sum, which all ranks resume from
            _exchange(learners, run_state, images, None)
            run_state.step = sum(run_state.done)
            raise
        results = distributed.raise_on_all_ranks(
            lambda: {i: self._finish_one(pairs, i, epoch, steps[i]) for i in trained_here}
        )
        received = _exchange(learners, run_state, images, results[trained_here[0]])
        if received is not None:
            results[1 - trained_here[0]] = received
        for i in range(len(pairs)):
            self.record_pass(results[i])

    def _train_one(self, pairs: Pairs, i: int, epoch: int) -> int:
        """Train network i beside the other's state of the stage's beginning; returns the pass's number of steps."""
        (own, guide), (other, _), run_state = pairs[i], pairs[1 - i], self.run_state
        present = other.snapshot()
        other.restore(run_state.snapshot[_key(other)])
        run_state.step = run_state.done[i]
        try:
            with distributed.own_subgroup():
                return train_epoch(own, guide, self.context, self.step_loop, epoch, run_state.step)
        finally:
            run_state.done[i] = run_state.step
            other.restore(present)

    def _finish_one(self, pairs: Pairs, i: int, epoch: int, steps: int) -> PassResult:
        own, guide = pairs[i]
        with distributed.own_subgroup():
            return finish_pass(own, guide, self.context, self.run_state.snapshot[_key(own)], epoch, steps)


SCHEDULES: dict[str, type[Schedule]] = {"data": Alternating, "co": CoTraining}
"""``parallel.mode`` -> the schedule of its training stages."""


def _key(learner: Learner) -> str:
    return f"net{learner.number}"


def _exchange(
    learners: Sequence[Learner], run_state: RunState, images_before: int, result: PassResult | None
) -> PassResult | None:
    """Send the network trained here to the other half of the ranks, and import theirs; returns their pass's result.

    result: of this half's pass, None before its end. With one process it does nothing and returns None.
    """
    if distributed.world_size() == 1:
        return None
    i = distributed.subgroup_index()
    buffer = io.BytesIO()
    torch.save(
        {
            "learner": learners[i].export_pass(),
            "done": run_state.done[i],
            "images": run_state.record["images"] - images_before,
            "result": None if result is None else [result.num_labelled, list(result.means), result.note],
        },
        buffer,
    )
    received = torch.load(
        io.BytesIO(distributed.swap_between_subgroups(buffer.getvalue(), "networks")),
        map_location="cpu",
        weights_only=True,
    )
    learners[1 - i].import_pass(received["learner"])
    run_state.done[1 - i] = received["done"]
    run_state.record["images"] += received["images"]
    if received["result"] is None:
        return None
    num_labelled, means, note = received["result"]
    return PassResult(num_labelled, tuple(means), note)
