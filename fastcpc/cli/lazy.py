"""Late import of the work of a command, after its arguments and settings are checked.

``--help`` and errors in arguments then need neither torch nor any other large library. This is the only late import of
a module of fastcpc; tests/test_imports.py holds it.
"""

import importlib
from collections.abc import Callable


def load_action(command: str) -> Callable[..., int]:
    """The function ``run`` of fastcpc/cli/actions/COMMAND.py; it returns the exit code."""
    run: Callable[..., int] = importlib.import_module(f"fastcpc.cli.actions.{command}").run
    return run
