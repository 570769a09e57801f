"""Checkpoints that survive a kill, a full disk and a flipped bit.

A checkpoint is a folder ``checkpoints/epoch_XXXX`` with net1.safetensors, net2.safetensors, state.pt and SHA256SUMS of
the three. It is written under a hidden name, synced, and renamed, so that under its own name it is whole from the first
moment. ``latest`` and ``best`` are small text files that hold a folder's name. Hidden names:

    .epoch_XXXX.tmp    being written; rubbish once its writer is gone
    .epoch_XXXX.old    what a new one of the same epoch replaces; whole, and counts until the new one is in place
    .epoch_XXXX.gone   being deleted
"""

import hashlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastcpc.engine.atomic import replace_file, sync_folder, write_failure, write_synced
from fastcpc.errors import InputError, RunError

logger = logging.getLogger("fastcpc")

SUMS = "SHA256SUMS"
STATE = "state.pt"
_NAME = re.compile(r"epoch_(\d{4,})")
_HIDDEN = re.compile(r"\.(epoch_\d{4,})\.(tmp|old|gone)")
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (net[1-9]\d*\.safetensors|state\.pt)")


@dataclass(frozen=True)
class Packed:
    """The content of a checkpoint, in main memory and shared with nothing that training changes."""

    epoch: int
    networks: list[dict[str, Tensor]]
    state: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """Of all tensors together."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors([self.networks, self.state]))


def pack(epoch: int, networks: Sequence[Mapping[str, Tensor]], state: dict[str, Any]) -> Packed:
    """Copy what a checkpoint shall hold; arguments and TypeError as ``CheckpointStore.save``."""
    return Packed(epoch, [_weights(network) for network in networks], _plain(state, "state"))


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

        epoch: the epoch the run stands in, 0 or more; one of the same epoch is replaced, later ones (of a course that
        the run has turned back from) are deleted. networks: state dicts, any device. state: tensors, numbers, strings,
        None, lists, tuples and dicts of them, or TypeError. Returns the folder. RunError on a full disk or any other
        failed write: nothing half-written stays, and the checkpoints before it are as they were.
        """
        return self.write(pack(epoch, networks, state), best=best)

    def write(self, packed: "Packed", *, best: bool) -> Path:
        """``save`` of what ``pack`` has copied; may be done on another thread, one at a time."""
        epoch = packed.epoch
        files = _serialise(packed, self.metadata)
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
        name = _pointer(self.folder, "best")
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
        best = _pointer(self.folder, "best")
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


def named(run_dir: Path, name: str) -> Path:
    """The checkpoint that a user names: latest, best, or a folder's name; InputError lists those there are."""
    there = candidates(run_dir)
    if not there:
        raise InputError(f"{run_dir} holds no checkpoint; has the run finished its first epoch?")
    if name == "latest":
        whole = latest(run_dir)
        if whole is None:
            raise RunError(f"every checkpoint in {run_dir / 'checkpoints'} is damaged ({len(there)} of {len(there)})")
        return whole
    target = _pointer(run_dir / "checkpoints", "best") if name == "best" else name
    for path in there:
        if path.name == target:
            return path
    choices = [
        "latest",
        *(["best"] if _pointer(run_dir / "checkpoints", "best") else []),
        *(path.name for path in there),
    ]
    raise InputError(f"no checkpoint {name!r} in {run_dir}; there is {', '.join(choices)}")


def resume_point(resume: str, store: CheckpointStore) -> Path | None:
    """Where a run starts: a checkpoint folder, or None for a fresh start.

    resume: run.resume. "auto" takes the store's newest whole checkpoint; "never" none; a path is a checkpoint's folder
    or the folder of a run, whose newest whole checkpoint it means; one of another run is where a run starts, and once
    this one has checkpoints of its own, it goes on from those. InputError: the path holds no checkpoint. RunError:
    there are checkpoints, and all of them are damaged.
    """
    if resume == "never":
        return None
    own = store.folder.parent
    if resume == "auto":
        return named(own, "latest") if candidates(own) else None
    path = Path(resume)
    if not path.is_dir():
        raise InputError(
            f"run.resume: {path} is not a folder; give auto, never, or the path of a checkpoint's or a run's folder"
        )
    if not turns_back(resume, own) and candidates(own):
        logger.info("%s has checkpoints of its own and goes on from those, not from %s", own, path)
        return named(own, "latest")
    if _is_checkpoint(path):
        return path
    if not candidates(path):
        raise InputError(
            f"run.resume: no checkpoint in {path}; expected net1.safetensors and {STATE} there, or checkpoints/epoch_*"
        )
    return named(path, "latest")


def turns_back(resume: str, run_dir: Path) -> bool:
    """Whether run.resume is a path inside the run's own folder: the run is to be taken back there."""
    return resume not in ("auto", "never") and Path(resume).resolve().is_relative_to(run_dir.resolve())


def read_whole(path: Path) -> dict[str, bytes]:
    """The files of a checkpoint whose checksums hold; RunError names the file that does not."""
    try:
        sums = (path / SUMS).read_bytes().decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(
            path, f"{SUMS} is missing" if isinstance(error, FileNotFoundError) else f"{SUMS} cannot be read"
        ) from error
    expected = {}
    for line in sums.split("\n")[:-1]:
        match = _SUM_LINE.fullmatch(line)
        if match is None:
            raise _damaged(path, f"{SUMS} has a line that is none")
        expected[match[2]] = match[1]
    num_networks = len(expected) - 1
    if num_networks < 1 or list(expected) != _file_names(num_networks) or sums != _sums_text(expected):
        raise _damaged(path, f"{SUMS} does not list the files of a checkpoint")
    files = {}
    for name, digest in expected.items():
        try:
            files[name] = (path / name).read_bytes()
        except OSError as error:
            raise _damaged(
                path, f"{name} is missing" if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}"
            ) from error
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise _damaged(path, f"{name} does not match its checksum in {SUMS}")
    return files


def load(path: Path) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Networks and state of a checkpoint folder, on the CPU.

    RunError when a checksum fails, and when a file with a matching checksum holds what a checkpoint does not: nothing
    is ever unpickled but tensors and plain values.
    """
    return parse(path, read_whole(path))


def parse(path: Path, files: Mapping[str, bytes]) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Networks and state from a checkpoint's files, as ``read_whole`` returns them; errors as ``load``."""
    # The parsers raise many types on hostile bytes; whichever it is, the file is not a checkpoint's.
    networks = []
    for name in list(files)[:-1]:
        try:
            networks.append(safetensors.torch.load(files[name]))
        except Exception as error:
            raise _damaged(path, f"{name} is no safetensors file") from error
    try:
        state = torch.load(io.BytesIO(files[STATE]), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _damaged(
            path, f"{STATE} holds something other than tensors and plain values, which is not loaded"
        ) from error
    if not isinstance(state, dict):
        raise _damaged(path, f"{STATE} holds a {type(state).__name__} instead of a dict")
    return networks, state


def metadata(path: Path) -> dict[str, str]:
    """The header of a checkpoint's first network: epoch, and what the store was given (architecture, num_classes)."""
    try:
        with safetensors.safe_open(path / "net1.safetensors", framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, "net1.safetensors cannot be read") from error


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"the checkpoint {path} is damaged: {why}")


def _is_checkpoint(path: Path) -> bool:
    return any((path / name).exists() for name in (SUMS, STATE, "net1.safetensors"))


def _pointer(folder: Path, name: str) -> str | None:
    try:
        text = (folder / name).read_bytes().decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _NAME.fullmatch(text) else None


def _file_names(num_networks: int) -> list[str]:
    return [*(f"net{number + 1}.safetensors" for number in range(num_networks)), STATE]


def _sums_text(digests: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def _serialise(packed: Packed, header: Mapping[str, str]) -> dict[str, bytes]:
    # Bytes in memory first: then a full disk is a plain OSError of one write, and the checksum needs no reading back.
    header = {"format": "pt", **header, "epoch": str(packed.epoch)}
    names = _file_names(len(packed.networks))
    files = {
        name: _steady(safetensors.torch.save(network, metadata=header))
        for name, network in zip(names[:-1], packed.networks, strict=True)
    }
    buffer = io.BytesIO()
    torch.save(packed.state, buffer)
    files[STATE] = buffer.getvalue()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, SUMS: _sums_text(digests).encode()}


def _steady(data: bytes) -> bytes:
    # The library writes the header's text in an order that changes from call to call: equal weights, equal files.
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _weights(network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Names as an uncompiled, unwrapped network has them; copies, as safetensors takes no shared or strided storage.
    named_weights = {}
    for name, tensor in network.items():
        plain_name = name.removeprefix("module.").replace("_orig_mod.", "")
        if plain_name in named_weights:
            raise ValueError(f"two weights are called {plain_name!r}")
        named_weights[plain_name] = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    return named_weights


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _plain(value: Any, where: str) -> Any:
    # numpy scalars and own classes would save well and fail at the next load with weights_only=True.
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)  # of its own elements alone, whatever it is a view of
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{where}[{number}]") for number, item in enumerate(value))
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (int, str):
                raise TypeError(f"{where} has a key of type {type(key).__name__}; int and str are allowed")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings, None, lists and dicts"
    )
