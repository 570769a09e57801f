"""What a user without rights does with run folders, for ``as_nobody`` to call by name; not a test itself."""

from pathlib import Path
from unittest.mock import patch

from nobody import give_up_rights
from small_run import StopAfter, run, small_config

from fastcpc.config.schema import Config, RunConfig
from fastcpc.engine import launch
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.errors import InputError


def open_folders(*folders: str) -> str:
    """Open a run in each folder; a line for each, with the message of its error."""
    give_up_rights()
    return "\n".join(map(_open, folders))


def _open(folder: str) -> str:
    try:
        RunDir(Config(run=RunConfig(dir=folder)))
    except InputError as error:
        return str(error)
    return "the folder opened"


def train_until_read_only(folder: str, before: str) -> str:
    """A small run in ``folder``, which turns read-only in an epoch; the type and the message of the error.

    before: where a whole run loads what is loaded at first use.
    """
    config = small_config(Path(folder))
    run(small_config(Path(before)))
    data = launch.load_data(config)

    class Frozen(StopAfter):
        @property
        def requested(self) -> int:  # type: ignore[override]
            self.looks += 1
            if self.looks == 40:
                for place in (Path(folder), Path(folder) / "checkpoints"):
                    place.chmod(0o555)
            return 0

    give_up_rights()
    with patch.object(launch, "load_data", lambda *_: data):
        try:
            run(config, Frozen())
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "the run did not notice"
