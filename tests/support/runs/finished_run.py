"""One finished run of a few seconds for the tests that read runs: trained once a test session, copied for each test."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from small_run import run, small_config


@cache
def _trained(kind: str) -> Path:
    place = Path(mkdtemp(prefix="fastcpc-finished-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    run(small_config(place / "run", kind))
    return place / "run"


def finished_run(target: Path, kind: str = "cpc_awr") -> Path:
    """A copy of a finished run of digits (240 samples, 4 epochs, 40 % symmetric noise) at target."""
    shutil.copytree(_trained(kind), target)
    return target
