"""Resuming on another data set: the check, and the state of a checkpoint mapped by path to the present samples.

``launch.train`` calls it. With ``--accept-changed-data`` a sample that the run does not know is unscored. It has no
loss history, and it is in neither set of a partition. An epoch that was interrupted begins again with its cleaning.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fastcpc.arrays import Ints
from fastcpc.atomic_io import replace_file
from fastcpc.config.schema import Config
from fastcpc.data.identity import NEW, TRAIN, DataIdentity, compare, row_map
from fastcpc.engine.checkpoint.format import CheckpointState, LearnerState, metadata
from fastcpc.engine.outputs.data_record import DATA_FILE, data_key, find_record, from_bytes, stored_digest
from fastcpc.engine.outputs.pred_probs import FEATURES_FILE, PRED_PROBS_FILE
from fastcpc.engine.outputs.sample_table import CLEANING_FILE
from fastcpc.engine.outputs.score_file import FIRST, LAST
from fastcpc.errors import InputError

DIGEST = "data"  # key in the header of a checkpoint's weights


@dataclass(frozen=True)
class StoredData:
    """The data set of a checkpoint. digest: empty where an earlier version wrote it. identity: its record, or None."""

    digest: str = ""
    identity: DataIdentity | None = None

    @classmethod
    def files(cls, checkpoint: Path) -> dict[str, bytes]:
        """The digest and the record of a checkpoint, as files for the other ranks."""
        run = checkpoint.parent.parent
        digest = metadata(checkpoint).get(DIGEST) or stored_digest(run / DATA_FILE)
        return {"digest": digest.encode(), "record": find_record(run, digest) or b""}

    @classmethod
    def read(cls, files: dict[str, bytes], where: Path) -> "StoredData":
        """From ``files``."""
        record = files["record"]
        return cls(files["digest"].decode(), from_bytes(record, where) if record else None)


@dataclass(frozen=True)
class Change:
    """An accepted difference.

    old_row_N: for each present training sample the row that it had, or NEW: int64 (N,). is_confirmed: whether
    data.corrections confirms other labels, so that a partition made before does not hold.
    """

    text: str
    num_then: int
    old_row_N: Ints
    is_confirmed: bool = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether only a test part has changed."""
        return np.array_equal(self.old_row_N, np.arange(self.num_then)) and not self.is_confirmed

    def note(self) -> str:
        """What the change does to the run, in a line."""
        new, kept = int((self.old_row_N == NEW).sum()), int((self.old_row_N != NEW).sum())
        return (
            f"{self.text}: accepted; {kept:,} training images keep their state, {new:,} start unscored, "
            f"{self.num_then - kept:,} are dropped; a begun epoch starts again"
        )


def find_change(stored: StoredData, now: DataIdentity, config: Config, run: Path, *, accept: bool) -> Change | None:
    """None where the data set is the one of the checkpoint. InputError where it is not, unless the user accepts it.

    Other classes are never accepted, because the networks have an output per class.
    """
    if not stored.digest or stored.digest == now.digest:
        return None
    key = data_key(config)
    if stored.identity is None:
        raise InputError(
            f"{key}: not the data set of {run}, which has no {DATA_FILE} that says what differs; restore the data set, "
            "or start a new run (another run.dir)"
        )
    difference = compare(stored.identity, now)
    if difference is None:
        return None
    if difference.classes:
        raise InputError(
            f"{key}: not the data set of {run} ({difference.text}); restore its classes, or start a new run (another "
            "run.dir): a run cannot change them"
        )
    if not accept:
        raise InputError(
            f"{key}: not the data set of {run} ({difference.text}); restore the data set, start a new run (another "
            "run.dir), or resume with --accept-changed-data"
        )
    then = stored.identity.parts[TRAIN]
    text = f"{key}: not the data set of {run} ({difference.text})"
    is_confirmed = stored.identity.confirmed != now.confirmed
    return Change(text, then.num_used, row_map(then, now.parts[TRAIN]), is_confirmed)


def check_num_samples(state: CheckpointState, num_samples: int, checkpoint: Path) -> None:
    """InputError where a checkpoint has the state of another number of training samples."""
    saved = _num_samples(state["members"][0])
    if saved != num_samples:
        raise InputError(
            f"{checkpoint}: the run has {saved:,} training images, the data set has {num_samples:,} now; restore the "
            "data set, or start a new run (another run.dir)"
        )


def map_samples(state: CheckpointState, change: Change) -> CheckpointState:
    """The state of a checkpoint for the present training samples, at the begin of an epoch."""
    position, rows_N = state["position"], torch.from_numpy(change.old_row_N)
    if change.is_elsewhere:
        return state
    # the cleaning of an epoch that begins again appends its losses again
    drop_last = position["stage"] > 0
    members = [_map_member(member, rows_N, change.num_then, drop_last=drop_last) for member in state["members"]]
    begin = {"epoch": position["epoch"], "stage": 0, "step": 0}
    return cast(CheckpointState, {**state, "members": members, "snapshot": {}, "done": [], "position": begin})


def _map_member(member: LearnerState, rows_N: Tensor, num_then: int, *, drop_last: bool) -> LearnerState:
    history_LN, partition = member["history"], member["partition"]
    if history_LN.shape[1] != num_then:  # losses of a pool, which the next cleaning does not read
        history_LN = torch.zeros(0, num_then)
    history_LN = history_LN[:-1] if drop_last else history_LN
    mapped: dict[str, Any] = {**member, "history": _mapped(history_LN, rows_N, torch.nan)}
    if partition is not None:
        mapped["partition"] = [_mapped(partition[0], rows_N, False), _mapped(partition[1], rows_N, torch.nan)]
    return cast(LearnerState, mapped)


def _mapped(values: Tensor, rows_N: Tensor, missing: float) -> Tensor:
    """Values (..., N_then) in the order of the present samples, (..., N)."""
    taken = values[..., rows_N.clamp_min(0)]
    return taken.masked_fill(rows_N == NEW, missing)


def _num_samples(member: LearnerState) -> int:
    partition = member["partition"]
    return int(member["history"].shape[1] if partition is None else len(partition[0]))


def map_files(folder: Path, stored: StoredData, change: Change) -> None:
    """Bring the files of a run's folder to the present samples.

    The scores of the first cleaning are mapped, NaN for new samples. The next cleaning and the end of the run write the
    other files again, so these are deleted.
    """
    if change.is_elsewhere:
        return
    for name in (LAST, CLEANING_FILE, PRED_PROBS_FILE, FEATURES_FILE):
        (folder / name).unlink(missing_ok=True)
    path = folder / FIRST
    if not path.exists():
        return
    arrays = None if stored_digest(folder / DATA_FILE) != stored.digest else _mapped_scores(path, change)
    if arrays is None:
        path.unlink()
        return
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    replace_file(path, buffer.getvalue())


def _mapped_scores(path: Path, change: Change) -> dict[str, np.ndarray] | None:
    """The arrays of a scores file for the present samples; None where it is of another number of samples."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if arrays["loss"].shape[1] != change.num_then:
        return None
    rows_N = torch.from_numpy(change.old_row_N)
    for name in arrays:
        if name in ("loss", "values") or name.startswith("q_"):
            arrays[name] = _mapped(torch.from_numpy(arrays[name]), rows_N, torch.nan).numpy()
    if "rows" in arrays:
        new_row = np.full(change.num_then, NEW)
        known = change.old_row_N != NEW
        new_row[change.old_row_N[known]] = np.flatnonzero(known)
        rows = new_row[arrays["rows"]]
        arrays["rows"], arrays["embeddings"] = rows[rows != NEW], arrays["embeddings"][:, rows != NEW]
    return arrays
