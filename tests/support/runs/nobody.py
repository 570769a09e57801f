"""Work done by a user without rights, in a process of its own; not a test itself.

The process is a fresh one. A fork of the tests' own process cannot train once a test there has started autograd's
threads.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from several_ranks import run_to_end


def as_nobody(function: str, *arguments: Any) -> str:
    """What ``MODULE:FUNCTION`` of tests/support returns for these arguments, which it gets as text.

    The function calls ``give_up_rights`` when it has loaded what it needs: nobody may not read all of Python.
    """
    command = [sys.executable, str(Path(__file__)), function, *map(str, arguments)]
    return run_to_end(command).stdout


def give_up_rights() -> None:
    """Make this process one of a user without rights; a process of another user than root stays as it is."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def _main(function: str, arguments: list[str]) -> None:
    module_name, name = function.split(":")
    sys.stdout.write(getattr(importlib.import_module(module_name), name)(*arguments))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
