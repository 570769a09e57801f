"""Where a run stands and what it has noted so far: all of a checkpoint that is no network's own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


def _no_history() -> dict[str, Any]:
    return {"test_top1": [], "seconds": 0.0, "best_epoch": -1}


@dataclass
class RunState:
    """The position of a run, saved so that it may stop and go on between any two steps.

    epoch, stage of the epoch and step of the stage that come next. done: steps of network 1 and of network 2 in a stage
    that trains both (``parallel.mode=co``), which then has the sum of them as its step; else empty. record: the running
    epoch's line of metrics.jsonl.
    past: of all epochs that are closed, test_top1 (percent, one each), their seconds in all, and best_epoch.
    """

    epoch: int = 0
    stage: int = 0
    step: int = 0
    done: list[int] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=_no_history)

    @property
    def is_between_epochs(self) -> bool:
        """Whether nothing of the coming epoch has been done."""
        return self.stage == self.step == 0

    def begin_epoch(self, phase: str, lr: float) -> None:
        """Start the epoch's record; without effect in an epoch that is under way."""
        if self.is_between_epochs:
            self.record = {"epoch": self.epoch, "phase": phase, "lr": lr, "seconds": {}, "images": 0}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time that the body takes under this name of the record's seconds, also where it is left by a
        stop."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.record["seconds"]
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin

    def next_stage(self) -> None:
        """The next stage comes, from its first step."""
        self.stage += 1
        self.step, self.done = 0, []

    def close_epoch(self) -> bool:
        """Complete the epoch's record, move on to the next; returns whether it is the best so far."""
        seconds = self.record["seconds"]
        seconds["clean"] = seconds.get("clean", 0.0) - seconds.get("score", 0.0)
        seconds["total"] = sum(seconds.values())
        images = self.record.pop("images")  # that went through a network to train it, views counted apart
        self.record["images_per_second"] = images / max(seconds["train"], 1e-9)
        self.record["data_wait"] = self.record.pop("waited", 0.0) / max(seconds["total"], 1e-9)
        self.history["seconds"] += seconds["total"]
        history = self.history["test_top1"]
        history.append(self.record["test_top1"])
        is_best = bool(history[-1] >= max(history))
        if is_best:
            self.history["best_epoch"] = self.epoch
        self.epoch, self.stage, self.step = self.epoch + 1, 0, 0
        return is_best

    def state(self) -> dict[str, Any]:
        """All of it, as plain values."""
        position = {"epoch": self.epoch, "stage": self.stage, "step": self.step}
        return {"position": position, "done": self.done, "record": self.record, "past": self.history}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""
        position = state["position"]
        self.epoch, self.stage, self.step = position["epoch"], position["stage"], position["step"]
        self.done = state.get("done", [])
        self.record, self.history = state["record"], state["past"]
