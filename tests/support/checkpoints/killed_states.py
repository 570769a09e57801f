"""Write small states in processes that are killed at each edge in turn; print what each kill leaves as JSON.

Usage: killed_states.py FOLDER. tests/bench/test_small_state.py runs it. An edge is the moment before and after each
write, rename and removal.

The forks are made here, in a process of one thread. The process of the tests holds DALI's loaders, and its fork has
none of their threads. Python may free a loader in the fork, where DALI then waits for the threads without end.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import small_state
from made_states import made_up, same

LIMIT = 300_000


def kill_at(moment: int) -> None:
    """Let this process get a SIGTERM at its edge of this number (0, 1, ...)."""
    edges = iter(range(10**6))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def edge() -> None:
        if next(edges) == moment:
            os.kill(os.getpid(), signal.SIGTERM)

    def at_edges(function: Callable[..., None]) -> Callable[..., None]:
        def watched(*arguments: Any, **options: Any) -> None:
            edge()
            function(*arguments, **options)
            edge()

        return watched

    small_state.write_synced = at_edges(small_state.write_synced)
    small_state.replace_file = at_edges(small_state.replace_file)
    Path.unlink = at_edges(Path.unlink)  # type: ignore[method-assign]


def killed(folder: Path, state: small_state.SmallState, moment: int) -> bool:
    """Write a state in a process that is killed at that edge; False when it ends before."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kill_at(moment)
            small_state.write(folder, state, limit=LIMIT)
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, "the write failed"
    return False


def kept_epochs(folder: Path) -> list[int]:
    """The epoch of the state that each kill leaves: 1 the former, 2 the new. AssertionError if it is not whole."""
    former, new = (made_up(small_state, stretches, fill=float(stretches)) for stretches in (1, 2))
    kept, ended = [], False
    while not ended:
        shutil.rmtree(folder, ignore_errors=True)
        small_state.write(folder, former, limit=LIMIT)
        ended = not killed(folder, new, len(kept))
        found = small_state.read(folder)
        assert found is not None
        assert same(found.networks, (former, new)[found.epoch - 1].networks)
        assert found.stretches == (former, new)[found.epoch - 1].stretches
        kept.append(found.epoch)
        small_state.write(folder, new, limit=LIMIT)  # over what the kill has left
        again = small_state.read(folder)
        assert again is not None and again.epoch == 2
    return kept


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(kept_epochs(Path(sys.argv[1]) / "state")))
