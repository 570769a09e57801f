"""Find a run's checkpoints: the newest undamaged one, a named one, the one to resume from. Read-only."""

import logging
import re
from pathlib import Path

from fastcpc.config.paths import existing_run
from fastcpc.engine.checkpoint.format import STATE, SUMS, read_whole
from fastcpc.errors import InputError, RunError

logger = logging.getLogger("fastcpc")

_NAME = re.compile(r"epoch_(\d{4,})")


def candidates(run_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, whole or not; reads names only and changes nothing."""
    folder = run_dir / "checkpoints"
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        replaced = path.name.startswith(".") and path.name.endswith(".old")
        if _NAME.fullmatch(path.name[1:-4] if replaced else path.name) and path.is_dir():
            found.append((epoch_of(path), not replaced, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def epoch_of(path: Path) -> int:
    """The epoch that a checkpoint folder's name says."""
    match = _NAME.search(path.name)
    if match is None:
        raise ValueError(f"{path} is not named like a checkpoint")
    return int(match[1])


def latest(run_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run's folder, or None; damaged ones are named in a warning. Changes nothing."""
    for path in candidates(run_dir):
        try:
            read_whole(path)
        except RunError as error:
            logger.warning("%s; trying the one before it", error)
        else:
            return path
    return None


def find_checkpoint(run_dir: Path, name: str) -> Path:
    """The checkpoint that a user names: latest, best, or a folder's name; InputError lists those there are."""
    there = candidates(run_dir)
    if not there:
        raise InputError(f"{run_dir} holds no checkpoint; has the run finished its first epoch?")
    if name == "latest":
        whole = latest(run_dir)
        if whole is None:
            raise RunError(f"every checkpoint in {run_dir / 'checkpoints'} is damaged ({len(there)} of {len(there)})")
        return whole
    target = pointer_target(run_dir / "checkpoints", "best") if name == "best" else name
    for path in there:
        if path.name == target:
            return path
    choices = [
        "latest",
        *(["best"] if pointer_target(run_dir / "checkpoints", "best") else []),
        *(path.name for path in there),
    ]
    raise InputError(f"no checkpoint {name!r} in {run_dir}; there is {', '.join(choices)}")


def resume_point(resume: str, own: Path) -> Path | None:
    """Where a run starts: a checkpoint folder, or None for a fresh start.

    resume: run.resume; own: the run's folder. "auto": its newest undamaged checkpoint. "never": None. A path: a
    checkpoint's folder, or a run's folder, which means its newest undamaged checkpoint. If the path is of another run,
    a run with checkpoints of its own resumes from those. InputError: the path has no checkpoint. RunError: every
    checkpoint is damaged.
    """
    if resume == "never":
        return None
    if resume == "auto":
        return find_checkpoint(own, "latest") if candidates(own) else None
    path = Path(resume).expanduser()
    existing_run(path)
    if not turns_back(resume, own) and candidates(own):
        logger.info("%s has checkpoints of its own and resumes from those, not from %s", own, path)
        return find_checkpoint(own, "latest")
    if _is_checkpoint(path):
        return path
    if not candidates(path):
        raise InputError(
            f"run.resume: no checkpoint in {path}; expected net1.safetensors and {STATE} there, or checkpoints/epoch_*"
        )
    return find_checkpoint(path, "latest")


def turns_back(resume: str, run_dir: Path) -> bool:
    """Whether run.resume is a path inside the run's own folder, so that the run returns to an earlier checkpoint."""
    return resume not in ("auto", "never") and Path(resume).expanduser().resolve().is_relative_to(run_dir.resolve())


def pointer_target(folder: Path, name: str) -> str | None:
    """The checkpoint folder that the file ``latest`` or ``best`` of a folder of checkpoints names, or None."""
    try:
        text = (folder / name).read_bytes().decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _NAME.fullmatch(text) else None


def _is_checkpoint(path: Path) -> bool:
    return any((path / name).exists() for name in (SUMS, STATE, "net1.safetensors"))
