"""A run between two stretches of training, in a few small files that can be copied between machines.

A folder holds, for its latest stretch (003 here),

    stretch_003.json        format, epochs closed, the config's text, every stretch so far, the summary at the end
    stretch_003.00.bin ...  one torch.save of weights and state, split into files of at most LIMIT bytes
    SHA256SUMS              of these; it is replaced last, and only what it lists counts
    metrics.jsonl           a line per epoch during the run; the run itself continues from the lines in the .bin files

A kill at any moment leaves either the former state or the new one complete.

float32 tensors with two or more dimensions and SMALL or more elements are rounded to bf16. This applies to both
networks, and to the momentum of their optimisers where it is kept. All else is exact: BatchNorm, biases, counters,
prototypes and their optimiser, loss histories, partitions. By default the momentum is left out. The next stretch then
starts it from zero, as at the start of a run.
"""

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcpc.atomic_io import replace_file, sync_folder, write_failure, write_synced
from fastcpc.config.load import load_config
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.config_diff import changed_settings
from fastcpc.engine.checkpoint.format import SUMS, load, pack, read_checked, read_sums, sums_text
from fastcpc.engine.checkpoint.resume import candidates
from fastcpc.errors import InputError, RunError

FORMAT = 1
LIMIT = 2**24 - 2**16  # bytes per file: below 16 MiB
SMALL = 4096
METRICS = "metrics.jsonl"
_OWN = re.compile(r"stretch_\d{3,}\.(?:json|\d{2,}\.bin)")
_SUM_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_OWN.pattern})")


@dataclass(frozen=True)
class SmallState:
    """A run between two epochs.

    epoch: how many are closed. config: the run's settings as YAML. metrics: the lines of metrics.jsonl of the closed
    epochs. stretches: the record of each so far, plain JSON. summary: summary.json of a finished run, else None.
    header: text in the head of a checkpoint's weights files. networks, state: as a checkpoint has them.
    """

    epoch: int
    config: str
    metrics: str
    stretches: list[dict[str, Any]]
    summary: dict[str, Any] | None
    header: dict[str, str]
    networks: list[dict[str, Tensor]]
    state: dict[str, Any]


def write(folder: Path, small: SmallState, *, keep_momentum: bool = False, limit: int = LIMIT) -> None:
    """Replace the folder's state in one step.

    keep_momentum: keep the momentum of the networks' optimisers, rounded like the weights. limit: bytes of a .bin file.
    Raises RunError if the state cannot be written; the former state is then still complete.
    """
    files = _files(small, keep_momentum, limit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_synced(folder / name, data)
        sync_folder(folder)
    except OSError as error:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        raise write_failure(error, folder, sum(len(data) for data in files.values())) from error
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    replace_file(folder / SUMS, sums_text(digests).encode())
    replace_file(folder / METRICS, small.metrics.encode())
    for path in folder.iterdir():
        if _OWN.fullmatch(path.name) and path.name not in files:
            path.unlink()


def read(folder: Path) -> SmallState | None:
    """The folder's state, weights in float32 again; None if the folder is missing or holds no state yet.

    Raises InputError in one line if a file is missing or damaged, the folder holds other files, or the format differs.
    """
    try:
        there = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"--state: {folder} cannot be read: {error.strerror}; give another folder") from error
    if SUMS not in there:
        if any(_OWN.fullmatch(name) for name in there):
            raise _damaged(folder, f"{SUMS} is missing")
        if set(there) - {METRICS}:
            raise InputError(f"--state: {folder} holds files that are no run's state; give an empty or new folder")
        return None
    files = read_checked(folder, read_sums(folder, _SUM_LINE, _damaged), _damaged)  # the .json first
    # If the checksums match, bad content comes from another program. The parsers then raise many types.
    try:
        about = json.loads(next(iter(files.values())))
        if about["format"] == FORMAT:
            if about["parts"] != len(files) - 1:
                raise ValueError("a part is not listed")
            content = torch.load(io.BytesIO(b"".join(list(files.values())[1:])), weights_only=True)
            networks = [{name: _wide(tensor) for name, tensor in net.items()} for net in content.pop("networks")]
            state = _each_momentum(content.pop("state"), _wide)
            kept = {key: about[key] for key in ("epoch", "config", "stretches", "summary")}
            return SmallState(**kept, **content, networks=networks, state=state)
    except Exception as error:
        raise _damaged(folder, f"it is not what this program writes ({error})") from error
    raise InputError(f"--state: {folder} has format {about['format']}, this program reads {FORMAT}: use its own commit")


def check_same(small: SmallState, config: Config, folder: Path) -> None:
    """Raises InputError if the state belongs to a run with other settings."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "config.yaml"
        file.write_text(small.config, encoding="utf-8")
        changed = changed_settings(load_config([file], []), config)
    if changed:
        raise InputError(
            f"--state: {folder} is of a run with other settings: {', '.join(changed)}; give another folder"
        )


def newest(run: Path) -> tuple[Path, list[dict[str, Tensor]], dict[str, Any]] | None:
    """The newest complete checkpoint of a run between two epochs, with its networks and state."""
    for path in candidates(run):
        try:
            networks, state = load(path)
        except RunError:  # being written when the trainer was killed
            continue
        if state["position"]["stage"] == state["position"]["step"] == 0:
            return path, networks, state
    return None


def _files(small: SmallState, keep_momentum: bool, limit: int) -> dict[str, bytes]:
    packed = pack(small.epoch, small.networks, small.state)
    buffer = io.BytesIO()
    content = {
        "header": small.header,
        "metrics": small.metrics,
        "networks": [{name: _narrow(tensor) for name, tensor in network.items()} for network in packed.networks],
        "state": _each_momentum(packed.state, _narrow if keep_momentum else None),
    }
    torch.save(content, buffer)
    data, stem = buffer.getvalue(), f"stretch_{len(small.stretches):03d}"
    parts = [data[begin : begin + limit] for begin in range(0, len(data), limit)]
    about = {
        "format": FORMAT,
        "epoch": small.epoch,
        "parts": len(parts),
        "momentum": keep_momentum,
        "stretches": small.stretches,
        "summary": small.summary,
        "config": small.config,
    }
    return {
        f"{stem}.json": (json.dumps(about, indent=1) + "\n").encode(),
        **{f"{stem}.{number:02d}.bin": part for number, part in enumerate(parts)},
    }


def _narrow(tensor: Tensor) -> Tensor:
    wanted = tensor.dtype == torch.float32 and tensor.ndim >= 2 and tensor.numel() >= SMALL
    return tensor.to(torch.bfloat16) if wanted else tensor


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _each_momentum(state: Mapping[str, Any], change: Callable[[Tensor], Tensor] | None) -> dict[str, Any]:
    """A checkpoint's state with changed tensors of the networks' optimisers; change: None leaves them out."""

    def of_optimizer(optimizer: dict[str, Any]) -> dict[str, Any]:
        if change is None:
            return {**optimizer, "state": {}}
        buffers = {
            parameter: {name: change(value) if isinstance(value, Tensor) else value for name, value in own.items()}
            for parameter, own in optimizer["state"].items()
        }
        return {**optimizer, "state": buffers}

    learners = [{**learner, "optimizer": of_optimizer(learner["optimizer"])} for learner in state["members"]]
    return {**state, "members": learners}


def _damaged(folder: Path, why: str) -> InputError:
    return InputError(f"--state: {folder} is damaged: {why}; copy it again, or give an empty folder to start over")
