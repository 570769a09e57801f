"""Warnings of torch itself on a GPU do not fail a test, here under pytest's own settings.

A process of its own, as a test on a GPU may start, reads the same settings.
"""

import re
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.profiler import profiler


@pytest.fixture
def _torch_repeats_warnings() -> Iterator[None]:
    """Otherwise torch gives each of them once per process, perhaps before these tests."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    profiler._WARNINGS_SHOWN.clear()
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("_torch_repeats_warnings")
def test_mode_that_detects_waits() -> None:
    torch._C._cuda_set_sync_debug_mode(0)  # without a GPU, what torch.cuda.set_sync_debug_mode calls


@pytest.mark.usefixtures("_torch_repeats_warnings")
def test_profiler_without_accumulated_events() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        pass


def test_method_that_the_compiler_imports() -> None:
    def method(self: object) -> object:
        return self

    torch.jit.script_method(method)  # type: ignore[no-untyped-call]


def test_float32_products_in_compiled_code() -> None:
    """Compiling them needs a GPU; the text is that of torch's source."""
    spec = find_spec("torch._inductor")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).with_name("compile_fx.py").read_text(encoding="utf-8")
    (text,) = re.findall(r'"(TensorFloat32 tensor cores [^"]*)"', source)
    warnings.warn(text, stacklevel=1)


def test_other_warnings_are_errors() -> None:
    with pytest.raises(UserWarning, match="another"):
        warnings.warn("another", stacklevel=1)
