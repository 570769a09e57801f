"""Checkpoints of small made-up networks; not a test itself."""

from typing import Any

import torch

from fastcpc.engine.checkpoint.store import CheckpointStore

Networks = list[dict[str, torch.Tensor]]


def make_networks(value: float = 0.5) -> Networks:
    """Two networks of a matrix and a count; the numbers tell the value that was asked for."""
    return [{"weight": torch.full((3, 2), value + number), "count": torch.tensor(7)} for number in range(2)]


def make_state(epoch: int) -> dict[Any, Any]:
    """A state of training as a run saves it: tensors that no two calls share, and plain values."""
    return {
        "position": {"epoch": epoch, "step": 12},
        "clean": torch.rand(500) > 0.5,
        "prob": torch.rand(500),
        "note": None,
    }


def save(store: CheckpointStore, *epochs: int, best: bool = False) -> None:
    """One checkpoint an epoch."""
    for epoch in epochs:
        store.save(epoch, make_networks(epoch), make_state(epoch), best=best)


def names(store: CheckpointStore) -> list[str]:
    """What is in the folder of the checkpoints."""
    return sorted(path.name for path in store.folder.iterdir())
