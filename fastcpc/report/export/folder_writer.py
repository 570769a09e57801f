"""Write the folder of an exported model, complete or not at all."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fastcpc.atomic_io import sync_folder, write_failure, write_synced
from fastcpc.errors import InputError
from fastcpc.report.export.model_folder import CONFIG


def check_target(target: Path, *, force: bool) -> None:
    """InputError where target cannot be written; force replaces an exported model and nothing else."""
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder, so {target.name} cannot be created there")
    if not os.path.lexists(target):
        return
    if not force:
        raise InputError(f"{target} exists already; give another --out, or --force to replace an earlier export")
    if target.is_symlink() or not _is_export(target):
        raise InputError(f"{target} is not an exported model, so --force does not replace it; give another --out")


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write files (by path inside the folder) to a hidden folder, then rename it to target.

    RunError when they cannot be written; an earlier export at target then stays unchanged.
    """
    staging = target.parent / f".{target.name}.tmp-{os.getpid()}"
    replaced = target.parent / f".{target.name}.old-{os.getpid()}"
    try:
        staging.mkdir()
        for name, data in files.items():
            place = staging / name
            place.parent.mkdir(exist_ok=True)
            write_synced(place, data)
        if target.exists():
            os.rename(target, replaced)
        os.rename(staging, target)
        sync_folder(target.parent)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if replaced.exists() and not target.exists():
            os.rename(replaced, target)
        if isinstance(error, OSError):
            raise write_failure(error, target, sum(map(len, files.values()))) from error
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _is_export(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "fastcpc" in config
