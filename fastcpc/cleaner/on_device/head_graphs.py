"""Runs of steps of a prototype head as CUDA graphs; ``prototype_sgd`` calls it.

A pass is a few hundred steps of small kernels, which cost the host more than the GPU. A graph holds a run of steps,
which a replay launches at once. A run reads its features and sets from memory that is filled before each replay, and
the learning rate from a tensor. The operations are those of the steps without a graph.

The first pass of a head makes its steps one by one: it compiles kernels and creates the momentum. Before a graph is
used, its first run is also made step by step, and both results are compared. Where a capture fails or the results
differ, one warning names the reason, and all later steps are made one by one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

logger = logging.getLogger("fastcpc")

MOST_RUNS = 8  # of a pass, unless a run would have more than LONGEST_RUN steps
SHORTEST_RUN, LONGEST_RUN = 16, 64  # steps; a graph's capture takes as long as these steps without it
TOLERANCE = 1e-3  # of a run's change: rounding of other matrix products, added up over its steps

# One step, of features (B, D) in their kept type, given labels, clean and pseudo labels (B,)
Step = Callable[[Tensor, Tensor, Tensor, Tensor], None]


@dataclass
class HeadGraphs:
    """The graphs of one head, by their number of steps. problem: why there are none, or empty.

    key: addresses and constants that graphs have inside. feat_RBD, sets_3RB, lr: what a run reads.
    """

    key: tuple[Any, ...] = ()
    problem: str = ""
    graphs: dict[int, torch.cuda.CUDAGraph] = field(default_factory=dict)
    feat_RBD: Tensor = field(default_factory=lambda: torch.empty(0))
    sets_3RB: Tensor = field(default_factory=lambda: torch.empty(0))
    lr: Tensor = field(default_factory=lambda: torch.empty(0))

    def prepare(self, key: tuple[Any, ...], length: int, feat_nD: Tensor, sets_3SB: Tensor) -> None:
        """Drop graphs of another key, and make room for a run of so many steps."""
        if key == self.key:
            return
        if self.graphs:
            torch.cuda.synchronize(feat_nD.device)  # no replay may be in progress
        self.key, self.graphs = key, {}
        batch = sets_3SB.shape[2]
        self.feat_RBD = feat_nD.new_empty(length, batch, feat_nD.shape[1])
        self.sets_3RB = sets_3SB.new_empty(3, length, batch)
        self.lr = torch.empty((), device=feat_nD.device)

    def load(self, feat_nD: Tensor, index_RB: Tensor, sets_3RB: Tensor) -> None:
        """Fill the memory that a run reads."""
        feat_RD = self.feat_RBD[: len(index_RB)].view(-1, feat_nD.shape[1])
        torch.index_select(feat_nD, 0, index_RB.reshape(-1), out=feat_RD)
        self.sets_3RB[:, : len(index_RB)].copy_(sets_3RB)

    def steps(self, number: int, step: Step) -> None:
        """The steps of a run, one by one."""
        labels_RB, clean_RB, pseudo_RB = self.sets_3RB[0], self.sets_3RB[1].bool(), self.sets_3RB[2]
        for i in range(number):
            step(self.feat_RBD[i], labels_RB[i], clean_RB[i], pseudo_RB[i])

    def capture(self, number: int, step: Step, optimizer: Optimizer) -> torch.cuda.CUDAGraph:
        """A graph of a run; nothing is computed. Other threads may call CUDA meanwhile."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.lr.device)
        pool = next(iter(self.graphs.values())).pool() if self.graphs else None
        try:
            with (
                learning_rate(optimizer, self.lr),
                torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"),
            ):
                self.steps(number, step)
        finally:
            torch.cuda.set_stream(stream)  # a failed capture leaves its own
            optimizer.zero_grad(set_to_none=True)  # gradients are in the graph's memory
        return graph

    def first_run(self, number: int, step: Step, optimizer: Optimizer) -> None:
        """Make a run step by step, capture it, and compare a replay from the same state; the device is read once."""
        state = learned(optimizer)
        before = [tensor.clone() for tensor in state]
        self.steps(number, step)
        expected = [tensor.clone() for tensor in state]
        put(state, before)
        try:
            graph = self.capture(number, step, optimizer)
            graph.replay()
            problem = difference(state, expected, before)
        except Exception as error:  # the driver, the allocator, an operation: any of them leaves the single steps
            problem = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        else:
            if not problem:
                self.graphs[number] = graph
                return
        put(state, expected)
        if problem != DIVERGED:
            self.problem, self.graphs = problem, {}
            warn(problem)


DIVERGED = "the prototypes became NaN or inf"  # which says nothing of the graph; the cleaner restores the head
_of_optimizer: "WeakKeyDictionary[Optimizer, HeadGraphs]" = WeakKeyDictionary()


def replayed(
    optimizer: Optimizer, step: Step, feat_nD: Tensor, index_SB: Tensor, sets_3SB: Tensor, constants: tuple[Any, ...]
) -> bool:
    """Make all steps of a pass in runs; False where nothing is done and the caller makes them one by one.

    optimizer: of the head. feat_nD: (n, D) kept features, on the GPU. index_SB: int64 (S, B), rows of each batch.
    sets_3SB: int64, given labels, clean (0 or 1) and pseudo labels of each batch. constants: what ``step`` has inside.
    """
    if not can_capture(optimizer, feat_nD):
        return False
    graphs = _of_optimizer.setdefault(optimizer, HeadGraphs())
    num_steps, batch = index_SB.shape
    length = min(max(-(-num_steps // MOST_RUNS), SHORTEST_RUN), LONGEST_RUN, num_steps)
    addresses = tuple(tensor.data_ptr() for tensor in learned(optimizer))
    settings = tuple((name, value) for name, value in optimizer.param_groups[0].items() if name not in ("params", "lr"))
    key = (addresses, settings, constants, length, batch, feat_nD.shape[1], feat_nD.dtype)
    graphs.prepare(key, length, feat_nD, sets_3SB)
    if graphs.problem:
        return False
    graphs.lr.fill_(optimizer.param_groups[0]["lr"])
    for start in range(0, num_steps, length):
        number = min(length, num_steps - start)
        graphs.load(feat_nD, index_SB[start : start + number], sets_3SB[:, start : start + number])
        if number in graphs.graphs:
            graphs.graphs[number].replay()
        elif graphs.problem:
            graphs.steps(number, step)
        else:
            graphs.first_run(number, step, optimizer)
    return True


def can_capture(optimizer: Optimizer, feat_nD: Tensor) -> bool:
    """Whether steps can be captured: SGD in one group whose momentum is there, features on the GPU.

    AdamW refuses a capture with its present settings, which checkpoints hold.
    """
    if type(optimizer) is not torch.optim.SGD or len(optimizer.param_groups) != 1 or not feat_nD.is_cuda:
        return False
    parameters = optimizer.param_groups[0]["params"]
    kept = [optimizer.state.get(parameter, {}) for parameter in parameters]  # reading ``state`` by key would add to it
    return all(values.get("momentum_buffer") is not None for values in kept)


def learned(optimizer: Optimizer) -> list[Tensor]:
    """What a step changes: parameters and momentum."""
    parameters = optimizer.param_groups[0]["params"]
    return [tensor.detach() for parameter in parameters for tensor in (parameter, momentum(optimizer, parameter))]


def momentum(optimizer: Optimizer, parameter: Tensor) -> Tensor:
    """The momentum of a parameter."""
    found: Tensor = optimizer.state[parameter]["momentum_buffer"]
    return found


def put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write values into tensors."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


@contextmanager
def learning_rate(optimizer: Optimizer, lr: Tensor) -> Iterator[None]:
    """The optimiser with a tensor as learning rate: a graph would keep a number as it was at the capture."""
    group = optimizer.param_groups[0]
    before, group["lr"] = group["lr"], lr
    try:
        yield
    finally:
        group["lr"] = before


def difference(state: Sequence[Tensor], expected: Sequence[Tensor], before: Sequence[Tensor]) -> str:
    """What a replay changed in another way than the single steps, or nothing; reads the device once."""
    norms = [[(a - b).norm() for a, b in zip(expected, other, strict=True)] for other in (state, before)]
    wrong, moved = torch.stack([torch.stack(part).norm() for part in norms]).tolist()
    if not torch.isfinite(torch.tensor(moved)):
        return DIVERGED
    return "" if wrong <= TOLERANCE * moved else f"a replay differs from its steps by {wrong / max(moved, 1e-30):.1e}"


@cache
def warn(problem: str) -> None:
    """Say once for each reason that steps are not replayed."""
    logger.warning("prototypes on a GPU by single steps instead of CUDA graphs: %s", problem)
