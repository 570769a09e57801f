"""Rules for every test: one thread, deterministic algorithms, and NaN in memory that nothing has written."""

import signal
import threading

import pytest
import torch

torch.set_num_threads(1)
if threading.current_thread() is threading.main_thread():
    # A shell starts background jobs with SIGINT ignored, and what we start would inherit that; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def strict_memory() -> None:
    """Deterministic algorithms fill what torch.empty returns with NaN, so that reading it cannot pass unseen."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
