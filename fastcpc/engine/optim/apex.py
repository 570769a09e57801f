"""NVIDIA's apex: whether it can be used here, and its fused SGD.

apex is imported only with ``optim.backend=apex``, after its files show that it is NVIDIA's: PyPI's ``apex`` is another
project.
"""

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

APEX_HELP = "docs/performance.md says how to build it; optim.backend=torch needs nothing"


def apex_problem() -> str:
    """Why NVIDIA's fused optimisers cannot be used here, in words for a message; empty where they can."""
    spec = find_spec("apex")
    if spec is None:
        return "NVIDIA's apex is not installed"
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if not any((place / "optimizers" / "fused_sgd.py").is_file() for place in places):
        where = places[0] if places else spec.origin
        return f"the package apex in {where} is not NVIDIA's (PyPI has another project of that name)"
    if find_spec("amp_C") is None:
        return "this apex was built without its CUDA kernels (amp_C; build it with APEX_CUDA_EXT=1)"
    return ""


def fused_sgd(parameters: Sequence[Any], **settings: float) -> torch.optim.Optimizer:
    """apex's FusedSGD of float32 parameters, or of groups of them. Only where ``apex_problem`` finds none."""
    made: Any = importlib.import_module("apex.optimizers").FusedSGD(parameters, **settings)
    assert isinstance(made, torch.optim.Optimizer)
    return made
