"""What a user without rights does with run folders, for ``as_nobody`` to call by name; not a test itself."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nobody import give_up_rights
from small_run import StopAfter, run, small_config

from fastcpc.cli import clean, prepare, report, train
from fastcpc.cli import eval as evaluate
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


def commands_on_read_only_folders(place: str) -> str:
    """Commands on place/run and place/images, where nobody can write; JSON: name -> [exit code, error lines].

    place/before has copies of both, on which each command runs first, to load what is loaded at first use.
    place/out is a folder where everybody can write.
    """
    base = Path(place)
    _run_commands(base / "before" / "run", base / "before" / "images", base / "before" / "out")
    give_up_rights()
    return json.dumps(_run_commands(base / "run", base / "images", base / "out"))


def _run_commands(run_dir: Path, images: Path, out: Path) -> dict[str, list[Any]]:
    data = ("data.name=imagefolder", f"data.root={images}", "data.resize=18", "data.crop=16", "data.workers=1")
    network = ("model.name=small_cnn", "model.width=16", "cpc.embedding_dim=16", "cleaner.kind=none", "device=cpu")
    training = [*data, *network, "train.epochs=1", "train.warmup_epochs=1", "data.feed=torch"]
    index = ["imagefolder", "--root", str(images), "--jobs", "1"]
    commands: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
        "report": (report.main, [str(run_dir)]),
        "clean": (clean.main, [str(run_dir)]),
        "eval": (evaluate.main, [str(run_dir), "--device", "cpu"]),
        "prepare": (prepare.main, index),
        "prepare --out": (prepare.main, [*index, "--out", str(out / "index.parquet")]),
        "train": (train.main, [*training, f"run.dir={out / 'trained'}"]),
        "train there": (train.main, [*training, f"run.dir={images / 'trained'}"]),
    }
    found: dict[str, list[Any]] = {}
    for name, (command, arguments) in commands.items():
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = command(arguments)
        found[name] = [code, [line for line in said.getvalue().splitlines() if "error" in line]]
    return found
