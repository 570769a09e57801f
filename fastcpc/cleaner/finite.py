"""Finds NaN and infinity in what a run learns.

engine/learner.py checks a network after each pass, prototypes.py checks its head after each update, and
engine/cleaning.py checks the probabilities of every cleaner. engine/train_epoch.py names the batch whose loss was not
finite. A check reads the device once.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fastcpc import distributed

NAMED_SAMPLES = 20  # of a bad batch, in its message


def non_finite(parts: Mapping[str, Sequence[Tensor]]) -> list[str]:
    """Names of the parts that contain NaN or infinity, in the given order; reads the device once.

    parts: name -> tensors on one device; integers and parts without tensors are always finite.
    """
    flags = {name: all_finite(tensors) for name, tensors in parts.items() if len(tensors)}
    if not flags:
        return []
    return [name for name, finite in zip(flags, torch.stack(list(flags.values())).tolist(), strict=True) if not finite]


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether no tensor has NaN or infinity, 0-d bool on the device. tensors: at least one, on one device."""
    return torch.stack([tensor.isfinite().all() for tensor in tensors]).all()


def momentum_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The momentum buffers that an optimiser has so far: one per parameter of SGD, two of AdamW."""
    found = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    return [buffer for buffer in found if isinstance(buffer, Tensor)]


def network_parts(network: nn.Module) -> dict[str, list[Tensor]]:
    """Everything that a network learns, for ``non_finite``: weights, BatchNorm statistics, prototype head."""
    parts: dict[str, list[Tensor]] = {"weights": [], "BatchNorm statistics": [], "prototype head": []}
    weights = {name for name, _ in network.named_parameters()}
    for name, value in network.state_dict().items():
        part = "prototype head" if name.startswith("head.") else "weights"
        parts[part if name in weights else "BatchNorm statistics"].append(value)
    return parts


def find_bad_batch(steps: Sequence[tuple[Tensor, Tensor]]) -> tuple[int, list[int]] | None:
    """The first step with a non-finite loss, counted from 0 within ``steps``, and the samples of its batch.

    steps: loss (0-d) and samples (int64 (b,)) of each step on this rank; the same number on every rank, and every rank
    must call. Only ranks whose own loss is not finite at that step contribute samples. None: all losses are finite.
    Reads the device.
    """
    if not steps:
        return None
    bad = torch.nonzero(~torch.stack([loss for loss, _ in steps]).isfinite()).flatten()
    own_first = bad[:1] if len(bad) else torch.full((1,), len(steps), device=bad.device)
    firsts = [int(first) for first in distributed.all_gather(own_first, "losses")]
    first = min(firsts)
    if first == len(steps):
        return None
    parts = distributed.all_gather(steps[first][1], "losses")
    samples = [part.tolist() for part, number in zip(parts, firsts, strict=True) if number == first]
    return first, [row for part in samples for row in part]


def describe_bad_batch(steps: Sequence[tuple[Tensor, Tensor]], num_steps: int) -> str:
    """The bad batch in words, for the end of a message. num_steps: of the whole pass; ``steps`` are its last ones."""
    found = find_bad_batch(steps)
    if found is None:
        return ""
    first, rows = found
    named = ", ".join(map(str, rows[:NAMED_SAMPLES])) + (", ..." if len(rows) > NAMED_SAMPLES else "")
    return f" (first at step {num_steps - len(steps) + first}, whose batch holds the {len(rows)} samples {named})"
