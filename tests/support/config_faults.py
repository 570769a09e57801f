"""What ``load_config`` says of settings that are wrong; not a test itself."""

from pathlib import Path

import pytest

from fastcpc.config.load import load_config
from fastcpc.errors import InputError


def problems(files: list[Path], overrides: list[str] | None = None) -> list[str]:
    """The lines of the InputError that these files and overrides end in."""
    with pytest.raises(InputError) as caught:
        load_config(files, overrides or [])
    return str(caught.value).split("\n")


def only_problem(files: list[Path], overrides: list[str] | None = None) -> str:
    """The one fault of these files and overrides, in one printable line."""
    lines = problems(files, overrides)
    assert len(lines) == 1, lines
    assert lines[0].isprintable()
    return lines[0]
