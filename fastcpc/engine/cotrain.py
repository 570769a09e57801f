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

from fastcpc import ranks
from fastcpc.engine.course import Course
from fastcpc.engine.interrupt import Stopped
from fastcpc.engine.member import Member
from fastcpc.engine.passes import PassEnd, end_pass, run_pass
from fastcpc.engine.stages import Training
from fastcpc.engine.walks import Walks

Snapshots = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class BothPasses:
    """Both networks' passes of an epoch, side by side.

    snapshots: both networks ("net1", "net2") as they were when the stage began. guesses: whether a network is trained
    with the other's help; False in the warm-up.
    """

    members: Sequence[Member]
    training: Training
    walks: Walks
    course: Course
    snapshots: Snapshots
    epoch: int
    guesses: bool

    def run(self) -> list[PassEnd]:
        """The rest of both passes, from ``course.done`` on; how they ended, network 1's first.

        Afterwards, also where Stopped is raised, every rank holds both networks with their optimisers.
        """
        own = list(range(len(self.members))) if ranks.size() == 1 else [ranks.half()]
        images = self.course.record["images"]
        steps: dict[int, int] = {}
        try:
            for i in own:
                steps[i] = self._own_pass(i)
        except Stopped:
            with ranks.own_half():
                for i in own:
                    ranks.mean_(self.members[i].sums, "losses")  # one sum, which all take up again
            _exchange(self.members, self.course, images, None)
            self.course.step = sum(self.course.done)
            raise
        ends = ranks.together(lambda: [self._end(i, steps[i]) for i in own])
        others = _exchange(self.members, self.course, images, ends[0])
        return ends if others is None else [ends[0], others] if ranks.half() == 0 else [others, ends[0]]

    def _own_pass(self, i: int) -> int:
        """The pass of one network, beside which the other stands as it was when the stage began."""
        own, other, course = self.members[i], self.members[1 - i], self.course
        present = other.snapshot()
        other.restore(self.snapshots[f"net{other.number}"])
        course.step = course.done[i]
        try:
            with ranks.own_half():
                guide = other if self.guesses else None
                return run_pass(own, guide, self.training, self.walks, self.epoch, course.step)
        finally:
            course.done[i] = course.step
            other.restore(present)

    def _end(self, i: int, steps: int) -> PassEnd:
        own, other = self.members[i], self.members[1 - i] if self.guesses else None
        with ranks.own_half():
            return end_pass(own, other, self.training, self.snapshots[f"net{own.number}"], self.epoch, steps)


def _exchange(members: Sequence[Member], course: Course, images_before: int, end: PassEnd | None) -> PassEnd | None:
    """Hand the own network to the other half, and take up its network; returns how that one's pass ended.

    end: of the own pass; None where it has not ended. With one process nothing is done.
    """
    if ranks.size() == 1:
        return None
    i = ranks.half()
    own_images = course.record["images"] - images_before
    buffer = io.BytesIO()
    torch.save(
        {
            "member": members[i].progress(),
            "done": course.done[i],
            "images": own_images,
            "end": None if end is None else [end.num_labelled, list(end.means), end.note],
        },
        buffer,
    )
    received = torch.load(io.BytesIO(ranks.swap(buffer.getvalue(), "networks")), map_location="cpu", weights_only=True)
    members[1 - i].take_up(received["member"])
    course.done[1 - i] = received["done"]
    course.record["images"] += received["images"]
    if received["end"] is None:
        return None
    num_labelled, means, note = received["end"]
    return PassEnd(num_labelled, tuple(means), note)
