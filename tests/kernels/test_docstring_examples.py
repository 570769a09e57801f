"""The examples in the docstrings of the kernels give what they show."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["gmm_em", "prototype_loss"])
def test_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"fastcpc.kernels.{module}"))
    assert result.attempted > 0 and result.failed == 0
