"""A run on Weights & Biases: its numbers, figures and summary. The only importer of wandb, which is an extra."""

import importlib
import json
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcpc.atomic_io import replace_file
from fastcpc.engine.loggers.figure_schedule import FigureImages
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")

ID_FILE = "wandb.json"  # which run of W&B this folder is


class WandbLog:
    """A run of a W&B project; resumed, it is the same one. Once begun, a failure is a warning and ends the logging.

    WANDB_MODE=offline writes below the run's folder and needs no network; wandb reads its other variables too.
    InputError: wandb is not installed, or failed to start (no network, not logged in).
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        """folder: the run's, open. project: log.wandb. config: setting -> value, as W&B is to show them."""
        self._wandb = _import(project)
        try:
            self._run = self._wandb.init(
                project=project,
                name=folder.resolve().name,
                id=_own_id(folder, project),
                resume="allow",
                dir=str(folder),
                config=dict(config),
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        # what wandb raises without a login or a network is of several unrelated classes
        except Exception as error:
            why = " ".join(str(error or type(error).__name__).split())[:200]
            raise InputError(
                f"log.wandb={project}: failed to start ({why}); run wandb login, set WANDB_MODE=offline, or leave "
                "log.wandb empty"
            ) from error
        logger.info("W&B: %s", f"offline, in {self._run.dir}" if self._run.offline else self._run.url)

    def epoch(self, epoch: int, scalars: Mapping[str, float], images: FigureImages) -> None:
        """The numbers of an epoch and the figures drawn after it."""
        self._try(lambda run: run.log({**scalars, **self._images(images)}, step=epoch, commit=True))

    def finished(self, epochs: int, summary: Mapping[str, Any], images: FigureImages) -> None:
        """The end of the run: its summary, and the last figures."""
        if images:
            self._try(lambda run: run.log(self._images(images), step=epochs, commit=True))
        self._try(lambda run: run.summary.update(dict(summary)))

    def close(self, *, failed: bool) -> None:
        """Give the run back; failed: W&B shows it as one that did not end by itself."""
        self._try(lambda run: run.finish(exit_code=int(failed)))
        self._run = None

    def _images(self, images: FigureImages) -> dict[str, Any]:
        return {tag: self._wandb.Image(pixels) for tag, pixels in images.items()}

    def _try(self, call: Any) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:
            self._run = None
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            logger.warning("W&B logging is off after an error (%s); training continues without it", why)


def _import(project: str) -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError:
        raise InputError(
            f"log.wandb={project}: wandb is not installed; pip install 'fastcpc[wandb]', or leave log.wandb empty"
        ) from None


def _own_id(folder: Path, project: str) -> str:
    """The id under which this folder is known in the project; made once."""
    path = folder / ID_FILE
    if path.exists():
        try:
            known = json.loads(path.read_bytes())
            if known["project"] == project:
                return str(known["id"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{path}: is damaged; delete it, and the run becomes a new one of W&B") from None
    own = secrets.token_hex(4)
    replace_file(path, (json.dumps({"project": project, "id": own}) + "\n").encode())
    return own
