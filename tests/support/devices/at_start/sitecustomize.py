"""Python runs this first in each process that a test starts, where ``--cpu-bf16`` puts its folder on PYTHONPATH.

It waits for torch, which most of these processes import late or never.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

sys.path.append(str(Path(__file__).parents[1]))  # forced_cpu.py; at the end, where it hides nothing


class WatchesForTorch:
    """A finder of modules that changes torch.cpu as soon as that is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch.cpu":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        honest = spec.loader.exec_module

        def then_force(module: ModuleType) -> None:
            from forced_cpu import VARIABLE, force_in

            honest(module)
            force_in(module, os.environ[VARIABLE] == "yes")

        spec.loader.exec_module = then_force  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, WatchesForTorch())  # type: ignore[arg-type]
