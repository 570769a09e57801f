"""Which samples were in the batch with which a pass stopped giving numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcpc import distributed

NAMED_SAMPLES = 20


def find_bad_batch(steps: Sequence[tuple[Tensor, Tensor]]) -> tuple[int, list[int]] | None:
    """The first step whose loss is no number, counted from 0 within those given, and the samples of its batch.

    steps: loss (0-d) and samples (int64 (b,)) of each step on this rank; as many steps on every rank, and every rank
    must call. Only the samples of ranks whose own loss is no number at that step are named. None: all losses are
    numbers. Reads the device.
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
    """The batch in words, to be put behind what happened; num_steps: of the whole pass, of which ``steps`` are the
    last."""
    found = find_bad_batch(steps)
    if found is None:
        return ""
    first, rows = found
    named = ", ".join(map(str, rows[:NAMED_SAMPLES])) + (", ..." if len(rows) > NAMED_SAMPLES else "")
    return f" (first at step {num_steps - len(steps) + first}, whose batch holds the {len(rows)} samples {named})"
