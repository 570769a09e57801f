"""Position and history of a run."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


def _empty_history() -> dict[str, Any]:
    return {"test_top1": [], "seconds": 0.0, "flops": 0, "best_epoch": -1}


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


@dataclass
class RunState:
    """Where a run is; a checkpoint can be written and resumed between any two steps.

    epoch, stage (of the epoch), step (of the stage): the next ones to do. done: steps of both networks in a stage
    that trains both (``parallel.mode=co``; ``step`` is their sum), else empty. record: the epoch's line
    of metrics.jsonl.
    history: of all finished epochs, test_top1 (percent, one per epoch), total seconds, total FLOPs (None: unknown), and
    best_epoch.
    """

    epoch: int = 0
    stage: int = 0
    step: int = 0
    done: list[int] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=_empty_history)

    @property
    def is_between_epochs(self) -> bool:
        """Whether nothing of the next epoch is done."""
        return self.stage == self.step == 0

    def begin_epoch(self, phase: str, lr: float) -> None:
        """Start the epoch's record; does nothing in an epoch that is resumed."""
        if self.is_between_epochs:
            self.record = {"epoch": self.epoch, "phase": phase, "lr": lr, "seconds": {}, "images": 0, "flops": 0}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the body's time to the record's seconds under this name, also if a stop ends it."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.record["seconds"]
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin

    def add_flops(self, flops: int | None) -> None:
        """Add to the record's FLOPs. One unknown part makes the sum unknown, also where an older version began it."""
        self.record["flops"] = _sum(self.record.get("flops"), flops)

    def next_stage(self) -> None:
        """Move to the first step of the next stage."""
        self.stage += 1
        self.step, self.done = 0, []

    def close_epoch(self) -> bool:
        """Complete the epoch's record and move to the next epoch; returns whether this one is the best so far."""
        seconds = self.record["seconds"]
        seconds["clean"] = seconds.get("clean", 0.0) - seconds.get("score", 0.0)
        seconds["total"] = sum(seconds.values())
        images = self.record.pop("images")  # that trained a network, each view counted
        self.record["images_per_second"] = images / max(seconds["train"], 1e-9)
        self.record["data_wait"] = self.record.pop("waited", 0.0) / max(seconds["total"], 1e-9)
        self.history["seconds"] += seconds["total"]
        self.history["flops"] = _sum(self.history.get("flops"), self.record.pop("flops", None))
        self.record["training_flops"] = self.history["flops"]
        history = self.history["test_top1"]
        history.append(self.record["test_top1"])
        is_best = bool(history[-1] >= max(history))
        if is_best:
            self.history["best_epoch"] = self.epoch
        self.epoch, self.stage, self.step = self.epoch + 1, 0, 0
        return is_best

    def state(self) -> dict[str, Any]:
        """The entries of a checkpoint's state."""
        return {
            "position": {"epoch": self.epoch, "stage": self.stage, "step": self.step},
            "done": self.done,
            "record": self.record,
            "past": self.history,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Load the entries of ``state``."""
        position = state["position"]
        self.epoch, self.stage, self.step = position["epoch"], position["stage"], position["step"]
        self.done = state.get("done", [])
        self.record, self.history = state["record"], state["past"]
