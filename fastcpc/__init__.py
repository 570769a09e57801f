"""fastcpc: train image classifiers on noisy labels with CPC-DivideMix, and list the labels that are wrong.

``audit`` is imported when it is first used, so that ``import fastcpc`` does not load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcpc.auditing.api import audit

__all__ = ["audit"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public functions, by name."""
    if name in __all__:
        return getattr(importlib.import_module("fastcpc.auditing.api"), name)
    raise AttributeError(f"module 'fastcpc' has no attribute {name!r}")
