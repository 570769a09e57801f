"""Write small states in processes that are killed at each write boundary in turn; print what each kill leaves as JSON.

Usage: killed_states.py FOLDER. tests/bench/test_small_state.py runs it. The boundaries are those of killed_saves.py.

The forks are made here, in a process of one thread. The process of the tests holds DALI's loaders, and its fork has
none of their threads. Python may free a loader in the fork, where DALI then waits for the threads without end.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import small_state
from killed_saves import killed
from made_states import made_up, same

LIMIT = 300_000  # bytes per file: several files


def kept_epochs(folder: Path) -> list[int]:
    """The epoch of the state that each kill leaves: 1 the former, 2 the new. AssertionError if it is not whole."""
    former, new = (made_up(small_state, stretches, fill=float(stretches)) for stretches in (1, 2))
    kept, ended = [], False
    while not ended:
        shutil.rmtree(folder, ignore_errors=True)
        small_state.write(folder, former, limit=LIMIT)
        ended = not killed(lambda: small_state.write(folder, new, limit=LIMIT), len(kept) + 1)
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
