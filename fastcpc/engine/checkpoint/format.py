"""The files of a checkpoint and the keys of state.pt (``CheckpointState``), written and read here.

Files: net1.safetensors, net2.safetensors, state.pt (tensors and plain values, read with ``weights_only=True``) and
SHA256SUMS of the three.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastcpc.engine.loggers.host_copies import HostCopies
from fastcpc.errors import RunError

SUMS = "SHA256SUMS"
STATE = "state.pt"
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (net[1-9]\d*\.safetensors|state\.pt)")


class Position(TypedDict):
    """The next epoch, the next stage of it, and the next step of that stage, each counted from 0."""

    epoch: int
    stage: int
    step: int


class LaterLearnerKeys(TypedDict, total=False):
    """Keys of a network's state that only some runs have."""

    weights: dict[str, Tensor]  # with ema.decay: the weights in training; those of the average are in netN.safetensors
    noise_bound: Tensor  # float64, 0-d: the guard's bound of the share of wrong labels; only with cleaner.guard=auto


class LearnerState(LaterLearnerKeys):
    """What state.pt holds of a network beside its weights; ``Learner.parts`` reads and loads each entry."""

    optimizer: dict[str, Any]  # state_dict of the optimiser of backbone and classifier
    cpc_optimizer: dict[str, Any]  # state_dict of the optimiser of the prototype head
    scaler: dict[str, Any]  # state_dict of the GradScaler
    history: Tensor  # float32 (L, N), the losses of earlier epochs that the cleaner averages
    sums: Tensor  # float64 (4,), sums of the losses of the running pass
    restores: int  # consecutive passes that were rolled back
    partition: list[Tensor] | None  # predicted clean, bool (N,), and clean probability, float32 (N,)


class LaterKeys(TypedDict, total=False):
    """Keys of state.pt that older checkpoints lack."""

    batch_size: int  # global batch
    mode: str  # parallel.mode
    done: list[int]  # parallel.mode=co inside a stage: steps of each network; else empty


class CheckpointState(LaterKeys):
    """The content of state.pt. Later versions must read these keys: never rename one."""

    config: str  # the run's settings, YAML
    position: Position
    record: dict[str, Any]  # the present epoch's line of metrics.jsonl so far
    past: dict[str, Any]  # test_top1 of each finished epoch, total seconds, best_epoch
    snapshot: dict[str, Any]  # inside a pass: scaler, network and momentum at its start; else empty
    members: list[LearnerState]


@dataclass(frozen=True)
class Packed:
    """A copy of a checkpoint's content in main memory, which training does not change."""

    epoch: int
    networks: list[dict[str, Tensor]]
    state: dict[str, Any]
    copies: HostCopies = field(default_factory=HostCopies)  # ``serialise`` waits for them

    @property
    def num_bytes(self) -> int:
        """Of all tensors together."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors([self.networks, self.state]))


def pack(
    epoch: int, networks: Sequence[Mapping[str, Tensor]], state: dict[str, Any], copies: HostCopies | None = None
) -> Packed:
    """Copy the content of a checkpoint; arguments and TypeError as ``CheckpointStore.save``.

    copies: takes the copies; None: into new memory.
    """
    copies = copies or HostCopies()
    return Packed(epoch, [_weights(network, copies) for network in networks], _plain(state, "state", copies), copies)


def serialise(packed: Packed, header: Mapping[str, str]) -> dict[str, bytes]:
    """File name -> bytes of a checkpoint. header: text put into the head of every weights file, beside the epoch."""
    packed.copies.wait()
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
    return {**files, SUMS: sums_text(digests).encode()}


def read_whole(path: Path) -> dict[str, bytes]:
    """The files of a checkpoint after checking their checksums; RunError names the file that fails."""
    digests = read_sums(path, _SUM_LINE, _damaged)
    num_networks = len(digests) - 1
    if num_networks < 1 or list(digests) != _file_names(num_networks):
        raise _damaged(path, f"{SUMS} does not list the files of a checkpoint")
    return read_checked(path, digests, _damaged)


def read_sums(folder: Path, line_pattern: re.Pattern[str], damaged: Callable[[Path, str], Exception]) -> dict[str, str]:
    """File name -> SHA-256 of a folder's SHA256SUMS. line_pattern: its groups are the digest and the name.

    Raises damaged(folder, reason).
    """
    try:
        text = (folder / SUMS).read_bytes().decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise damaged(folder, f"{SUMS} {reason}") from error
    digests = {}
    for line in text.split("\n")[:-1]:
        match = line_pattern.fullmatch(line)
        if match is None:
            raise damaged(folder, f"malformed line in {SUMS}")
        digests[match[2]] = match[1]
    if text != sums_text(digests):
        raise damaged(folder, f"malformed line in {SUMS}")
    return digests


def read_checked(
    folder: Path, digests: Mapping[str, str], damaged: Callable[[Path, str], Exception]
) -> dict[str, bytes]:
    """File name -> bytes after checking each SHA-256; raises damaged(folder, reason)."""
    files = {}
    for name, digest in digests.items():
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            raise damaged(folder, f"{name} {reason}") from error
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise damaged(folder, f"{name} does not match its checksum in {SUMS}")
    return files


def load(path: Path) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Networks and state of a checkpoint folder, on the CPU.

    RunError when a checksum fails, and when a file with a matching checksum holds anything but tensors and plain
    values. Nothing else is unpickled.
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


def checked_state(path: Path, state: Mapping[str, Any]) -> CheckpointState:
    """The state with the keys of its schema; RunError names a missing one."""
    missing = sorted(CheckpointState.__required_keys__ - state.keys())
    for learner in state.get("members", []):
        missing += sorted(f"members.{key}" for key in LearnerState.__required_keys__ - learner.keys())
    if missing:
        raise _damaged(path, f"{STATE} lacks {', '.join(missing)}")
    return cast(CheckpointState, dict(state))


def metadata(path: Path) -> dict[str, str]:
    """The header of a checkpoint's first network: epoch, and what the store was given (architecture, num_classes)."""
    try:
        with safetensors.safe_open(path / "net1.safetensors", framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, "net1.safetensors cannot be read") from error


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"the checkpoint {path} is damaged: {why}")


def _file_names(num_networks: int) -> list[str]:
    return [*(f"net{number + 1}.safetensors" for number in range(num_networks)), STATE]


def sums_text(digests: Mapping[str, str]) -> str:
    """The content of SHA256SUMS."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def _steady(data: bytes) -> bytes:
    # The library writes the header's text in an order that changes from call to call: equal weights, equal files.
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _weights(network: Mapping[str, Tensor], copies: HostCopies) -> dict[str, Tensor]:
    # Names as an uncompiled, unwrapped network has them; copies, as safetensors takes no shared or strided storage.
    named_weights = {}
    for name, tensor in network.items():
        plain_name = name.removeprefix("module.").replace("_orig_mod.", "")
        if plain_name in named_weights:
            raise ValueError(f"two weights are called {plain_name!r}")
        named_weights[plain_name] = copies.of(tensor, torch.contiguous_format)
    return named_weights


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _plain(value: Any, where: str, copies: HostCopies) -> Any:
    # numpy scalars and own classes would save well and fail at the next load with weights_only=True.
    if isinstance(value, Tensor):
        return copies.of(value)  # of its own elements alone, whatever it is a view of
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{where}[{number}]", copies) for number, item in enumerate(value))
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (int, str):
                raise TypeError(f"{where} has a key of type {type(key).__name__}; int and str are allowed")
        return {key: _plain(item, f"{where}[{key!r}]", copies) for key, item in value.items()}
    raise TypeError(
        f"{where} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings, None, lists and dicts"
    )
