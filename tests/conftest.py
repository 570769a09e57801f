"""Rules for every test: one thread, one seed, deterministic algorithms, and NaN in memory that nothing has written.

Hypothesis draws the same examples in every run, and no example has a time limit: a busy machine must not fail a test.

On a CPU that multiplies bfloat16, ``precision=auto`` is bf16. To test that on any CPU: ``pytest --cpu-bf16=yes``, or
``make test CPU_BF16=yes``. ``no`` tests fp32 on a CPU that has bfloat16.
"""

import os
import signal
import threading

import numpy as np
import pytest
import torch
from forced_cpu import force_everywhere
from hypothesis import settings

torch.set_num_threads(1)
# compile in this process: the pool that inductor would start forks a process that has threads, which may hang
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")
if threading.current_thread() is threading.main_thread():
    # A shell starts background jobs with SIGINT ignored, and what we start would inherit that; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-bf16", choices=("yes", "no"), help="make torch say whether the CPU multiplies bfloat16")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cpu-bf16"):
        force_everywhere(config.getoption("--cpu-bf16"))


@pytest.fixture(autouse=True)
def reproducible() -> None:
    """The same random numbers whichever tests ran before. Deterministic algorithms fill what torch.empty returns with
    NaN, so that reading it cannot pass unseen."""
    torch.manual_seed(0)
    np.random.seed(0)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
