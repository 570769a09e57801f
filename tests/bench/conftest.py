"""The benches of accuracy as modules: bench/ is a folder of scripts."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """bench/ is a folder of scripts, which import each other."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    for name in ("harness", "small_state", "accuracy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("accuracy")
    for name in ("harness", "small_state", "accuracy"):
        sys.modules.pop(name, None)


@pytest.fixture
def small_state(accuracy: ModuleType) -> ModuleType:
    """The same module that ``accuracy`` reads and writes its states with."""
    return accuracy.small_state
