"""Finds NaN and infinity in what a run learns.

engine/learner.py checks a network after each pass, prototypes.py checks its head after each update, and
engine/cleaning.py checks the probabilities of every cleaner. A check reads the device once.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def non_finite(parts: Mapping[str, Sequence[Tensor]]) -> list[str]:
    """Names of the parts that contain NaN or infinity, in the given order; reads the device once.

    parts: name -> tensors on one device; integers and parts without tensors are always finite.
    """
    flags = {
        name: torch.stack([tensor.isfinite().all() for tensor in tensors]).all()
        for name, tensors in parts.items()
        if len(tensors)
    }
    if not flags:
        return []
    return [name for name, finite in zip(flags, torch.stack(list(flags.values())).tolist(), strict=True) if not finite]


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
