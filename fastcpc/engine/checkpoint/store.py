"""Checkpoint storage that survives a kill, a full disk and a flipped bit.

A checkpoint is a folder ``checkpoints/epoch_XXXX`` with net1.safetensors, net2.safetensors, state.pt and SHA256SUMS of
the three. It is written under a hidden name, synced, and renamed, so that under its own name it is whole from the first
moment. ``latest`` and ``best`` are small text files that hold a folder's name. Hidden names:

    .epoch_XXXX.tmp    being written; rubbish once its writer is gone
    .epoch_XXXX.old    what a new one of the same epoch replaces; whole, and counts until the new one is in place
    .epoch_XXXX.gone   being deleted
"""

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fastcpc.atomic_io import replace_file, sync_folder, write_failure, write_synced
from fastcpc.engine.checkpoint.format import Packed, load, pack, serialise
from fastcpc.engine.checkpoint.resume import candidates, epoch_of, latest, pointer_target

logger = logging.getLogger("fastcpc")

_HIDDEN = re.compile(r"\.(epoch_\d{4,})\.(tmp|old|gone)")


class CheckpointStore:
    """The checkpoints of one run, for the one process that holds the run's lock.

    run_dir: the run's folder. keep_every: also keep epochs 0, k, 2k, ...; 0 keeps the last two and the best only.
    metadata: text put into the header of every weights file (architecture, num_classes), beside the epoch.
    Opening it clears away what a killed process left half-done.
    """

    def __init__(self, run_dir: Path, keep_every: int, metadata: Mapping[str, str] | None = None) -> None:
        self.folder = run_dir / "checkpoints"
        self.keep_every = keep_every
        self.metadata = dict(metadata or {})
        self._recover()

    def save(self, epoch: int, networks: Sequence[Mapping[str, Tensor]], state: dict[str, Any], *, best: bool) -> Path:
        """Write the checkpoint of an epoch, point ``latest`` (and ``best``) at it, delete those no longer wanted.

        epoch: the run's epoch, 0 or more. A checkpoint of the same epoch is replaced; later ones (after a return to an
        earlier checkpoint) are deleted. networks: state dicts, any device. state: tensors, numbers, strings,
        None, lists, tuples and dicts of them, or TypeError. Returns the folder. RunError on a full disk or any other
        failed write: nothing half-written stays, and the checkpoints before it are as they were.
        """
        return self.write(pack(epoch, networks, state), best=best)

    def write(self, packed: Packed, *, best: bool) -> Path:
        """``save`` of what ``pack`` has copied; may be done on another thread, one at a time."""
        epoch = packed.epoch
        files = serialise(packed, self.metadata)
        final = self.folder / f"epoch_{epoch:04d}"
        staging = self.folder / f".{final.name}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
            for name, data in files.items():
                write_synced(staging / name, data)
            sync_folder(staging)
            self._put(staging, final)
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            if isinstance(error, OSError):
                raise write_failure(error, final, sum(len(data) for data in files.values())) from error
            raise
        replace_file(self.folder / "latest", f"{final.name}\n".encode())
        if best:
            replace_file(self.folder / "best", f"{final.name}\n".encode())
        self._prune(epoch)
        return final

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None; each damaged one that is passed over is named in a warning."""
        return latest(self.folder.parent)

    def has_best(self) -> bool:
        """Whether ``best`` points at a checkpoint."""
        name = pointer_target(self.folder, "best")
        return name is not None and (self.folder / name).is_dir()

    def load(self, path: Path) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
        """Networks and state of a checkpoint folder, on the CPU; RunError when it is damaged."""
        return load(path)

    def _put(self, staging: Path, final: Path) -> None:
        replaced = self.folder / f".{final.name}.old"
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)  # only left here by a failed rename in this very process
            os.rename(final, replaced)
        os.rename(staging, final)
        sync_folder(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def _prune(self, epoch: int) -> None:
        best = pointer_target(self.folder, "best")
        there = candidates(self.folder.parent)
        # the one before the last stays too: should the last be damaged on the disk, the run loses an epoch and not all
        previous = max((epoch_of(path) for path in there if epoch_of(path) < epoch), default=None)
        for path in there:
            old = epoch_of(path)
            wanted = path.name == best or old == previous or (self.keep_every > 0 and old % self.keep_every == 0)
            if old > epoch or (old < epoch and not wanted):
                self._remove(path)
        if best is not None and not (self.folder / best).exists():
            (self.folder / "best").unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        # Renamed first: a kill in the middle of the deletion must not leave something that looks like a checkpoint.
        gone = self.folder / f".epoch_{epoch_of(path):04d}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        try:
            os.rename(path, gone)
        except OSError as error:
            logger.warning("cannot delete the old checkpoint %s: %s", path, error.strerror)
        shutil.rmtree(gone, ignore_errors=True)

    def _recover(self) -> None:
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            match = _HIDDEN.fullmatch(path.name)
            if match is None:
                if path.is_file() and re.fullmatch(r"\.(latest|best)\.tmp-\d+", path.name):
                    path.unlink(missing_ok=True)
            elif match[2] == "old" and not (self.folder / match[1]).exists():
                os.rename(path, self.folder / match[1])
            else:
                shutil.rmtree(path, ignore_errors=True)
