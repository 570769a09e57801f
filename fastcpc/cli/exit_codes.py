"""Exit codes of the commands: one line per error that the user can fix, a traceback for an error in fastcpc."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from fastcpc.errors import InputError, RunError


class InputParser(argparse.ArgumentParser):
    """An argument parser that raises InputError; abbreviated options are errors."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings, allow_abbrev=False)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Called by argparse with the error message."""
        raise InputError(f"{message} (see {self.prog} --help)")


def report_error(program: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    InputError and RunError are printed to stderr as "PROGRAM: error: ...", once per line of the message. A closed pipe
    at stdout (``--help | head``) prints nothing. The interpreter shows other exceptions with their traceback.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except (InputError, RunError) as error:
        if not error.on_all_ranks or os.environ.get("RANK", "0") == "0":
            for line in str(error).splitlines():
                print(f"{program}: error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except SystemExit as exit_:  # argparse, after --help
        return _flushed(exit_.code if isinstance(exit_.code, int) else 0)
    except BrokenPipeError:
        return _silenced()


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _silenced()
    return code


def _silenced() -> int:
    # The interpreter flushes stdout again when it exits: send that to the null device. 141 = 128 + SIGPIPE.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
