"""Error messages of ``load_config``, for the tests of settings; not a test itself."""

from pathlib import Path

import pytest

from fastcpc.config.load import load_config
from fastcpc.errors import InputError


def problems(files: list[Path], overrides: list[str] | None = None) -> list[str]:
    """The lines of the InputError that these files and overrides raise."""
    with pytest.raises(InputError) as caught:
        load_config(files, overrides or [])
    return str(caught.value).split("\n")


def only_problem(files: list[Path], overrides: list[str] | None = None) -> str:
    """The only error in these files and overrides: one printable line."""
    lines = problems(files, overrides)
    assert len(lines) == 1, lines
    assert lines[0].isprintable()
    return lines[0]
