"""How a command ends: one line for each fault that a user can mend, a traceback for what we must mend."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from fastcpc.errors import InputError, RunError


class InputParser(argparse.ArgumentParser):
    """An argument parser whose complaints are InputErrors; abbreviated options are refused."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings, allow_abbrev=False)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise InputError(f"{message} (see {self.prog} --help)")


def report_error(program: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    InputError and RunError become "PROGRAM: error: ..." on stderr, a line for each line of the message. A closed pipe
    at stdout (``--help | head``) ends quietly. Other exceptions pass through, and the interpreter shows them.
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
    # The interpreter flushes stdout once more at its end; let that go nowhere. 141 = 128 + SIGPIPE, as in a shell.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
