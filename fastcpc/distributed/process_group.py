"""Process groups, their initialisation, and timeout errors that name the silent rank.

torchrun starts the processes and gives each its rank by environment variables. Two groups: ``control`` (always gloo,
on the CPU: agreements, errors, stops) and ``data`` (gradients, statistics, scores; nccl on GPUs, gloo on CPUs). The
nccl path is untested on GPUs.

A single process has no group. ``FASTCPC_SINGLE_RANK_GROUP=1`` makes one for it under torchrun: every collective runs on
one rank, so that nccl can be tested on a machine with one GPU.
"""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from fastcpc.errors import InputError, LostContactError, RunError

SINGLE_RANK = "FASTCPC_SINGLE_RANK_GROUP"
JOIN_SECONDS = 600.0  # to find each other and agree on a config, before the config's own limit holds
GATHER_SECONDS = 3.0  # that those who waited in vain give each other to say so, before the silent one is named


@dataclass
class RankGroup:
    """Processes that work together: this one's rank, and the process groups that connect it to the others.

    data is None until ``connect``. half: the group of this process's half, where the ranks train two networks.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any | None = None
    control: dist.ProcessGroup | None = None
    data: dist.ProcessGroup | None = None
    backend: str = ""
    timeout: float = JOIN_SECONDS
    place: str = "the start"
    sent: dict[str, int] = field(default_factory=dict)
    half: "RankGroup | None" = None

    @property
    def alone(self) -> bool:
        """Whether there is nobody to send to: one process, without a group made for it."""
        return self.size == 1 and self.control is None


_alone = RankGroup()
_all = _alone  # every process of the run
_group = _alone  # those that share the present work: all, or within ``own_subgroup`` this one's half


def whole_group() -> RankGroup:
    """All processes of the run; a group of size 1 where this one is alone. Agreements and stops are theirs."""
    return _all


def current_group() -> RankGroup:
    """The processes that share the present work: everyone, or half of them. Batches, sums and gathers are theirs."""
    return _group


def rank() -> int:
    """This process's number among those that share the present work, from 0."""
    return _group.rank


def world_size() -> int:
    """How many processes share the present work."""
    return _group.size


def has_group() -> bool:
    """Whether the processes that share the present work exchange messages; a single one does with SINGLE_RANK."""
    return not _group.alone


def local_rank() -> int:
    """This process's number on its machine, from 0: the number of its GPU."""
    return _all.local_rank


def is_rank0() -> bool:
    """Whether this is rank 0 of all, which writes the run's files and speaks on the console."""
    return _all.rank == 0


def backend() -> str:
    """gloo or nccl; empty with one process."""
    return _all.backend


def data_group() -> dist.ProcessGroup | None:
    """The group that gradients and statistics travel in, for torch's own layers; None with one process."""
    return _group.data


@contextmanager
def use_group(group: RankGroup) -> Iterator[None]:
    """Within the body this group's processes share the work."""
    global _group
    before, _group = _group, group
    try:
        yield
    finally:
        _group = before


def launched_by_torchrun() -> bool:
    """Whether torchrun started this process, with others or alone."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarts() -> int:
    """How often torchrun has restarted the processes, 0 without it."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def with_rank_prefix(text: str) -> str:
    """A line of this rank's own, with its number where there are several."""
    return f"rank {_all.rank}: {text}" if _all.size > 1 else text


@contextmanager
def joined_process_group() -> Iterator[None]:
    """Meet the processes that torchrun started with this one; leave them at the end. Nothing with one process.

    InputError: an environment that torchrun did not make. RunError: they do not find each other.
    """
    global _all, _group
    world_size = _environment("WORLD_SIZE", 1)
    if world_size == 1 and os.environ.get(SINGLE_RANK, "0") == "0":
        yield
        return
    place = _environment("RANK", -1), _environment("LOCAL_RANK", -1)
    if min(place) < 0 or not os.environ.get("MASTER_ADDR") or not os.environ.get("MASTER_PORT"):
        raise InputError(
            f"WORLD_SIZE is {world_size}, but RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are not all set: start "
            "several processes by torchrun -m fastcpc.cli.train, or one without WORLD_SIZE"
        )
    limit = timedelta(seconds=JOIN_SECONDS)
    try:
        common, own_rank, size_ = next(rendezvous("env://", timeout=limit))
        store = rendezvous_store(common, own_rank, size_, JOIN_SECONDS)
        dist.init_process_group("gloo", store=store, rank=own_rank, world_size=size_, timeout=limit)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"rank {place[0]} cannot join the other processes: {_first_line(error)}") from error
    _all = _group = RankGroup(own_rank, size_, place[1], store=store, control=dist.group.WORLD)
    try:
        yield
    finally:
        with suppress(RuntimeError):  # what the others do no longer matters
            dist.destroy_process_group()
        _all = _group = _alone


def connect(device: torch.device, timeout: float) -> None:
    """Open the ways that training takes, once the config is known.

    timeout: seconds without an answer from a rank after which the run ends.
    """
    if _all.alone:
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _all.timeout = timeout
    _all.backend = "nccl" if device.type == "cuda" else "gloo"
    _all.half = None
    with explained_errors():
        _all.control = new_control_group(range(_all.size))
        _all.data = new_data_group(range(_all.size))


def new_data_group(members: Sequence[int]) -> dist.ProcessGroup:
    """A new group of these ranks, in which tensors of the device travel; every rank of the run must call."""
    # where the host waits for the device, gloo's limit on the control group passes first and names the rank
    seconds = _all.timeout + 60 if _all.backend == "nccl" else _all.timeout
    group: dist.ProcessGroup = dist.new_group(list(members), backend=_all.backend, timeout=timedelta(seconds=seconds))
    return group


def new_control_group(members: Sequence[int]) -> dist.ProcessGroup:
    """A new group of these ranks for tensors in main memory; every rank of the run must call."""
    group: dist.ProcessGroup = dist.new_group(list(members), backend="gloo", timeout=timedelta(seconds=_all.timeout))
    return group


def set_location(place: str) -> None:
    """Publish where this process is ("epoch 3, train net 1"), for the message of the others if it does not answer."""
    _all.place = place
    if _all.store is not None:
        with suppress(RuntimeError):
            _all.store.set(f"place/{_all.rank}", place)


def rendezvous_store(common: Any, own_rank: int, num_ranks: int, seconds: float) -> Any:
    """A store of this start's processes alone.

    torchrun keeps one store over all restarts, where addresses of processes that are gone would be found and tried. So
    rank 0 names each start, and answers the others with this name. Each of them asks under a new unique name. Rank 0
    answers until all have received it. RuntimeError when they do not meet in time.
    """
    deadline = time.monotonic() + seconds
    own_name = uuid.uuid4().hex
    if own_rank:
        common.set(f"fastcpc/asks/{own_rank}", own_name)
        while not common.check([f"fastcpc/answer/{own_name}"]):
            _wait(deadline, "rank 0 does not answer")
        start = common.get(f"fastcpc/answer/{own_name}").decode()
        common.add(f"fastcpc/heard/{start}", 1)
        return dist.PrefixStore(f"fastcpc/{start}", common)  # type: ignore[attr-defined]
    answered: dict[int, str] = {}
    while common.add(f"fastcpc/heard/{own_name}", 0) < num_ranks - 1:
        for number in range(1, num_ranks):
            if common.check([f"fastcpc/asks/{number}"]):
                name = common.get(f"fastcpc/asks/{number}").decode()
                if answered.get(number) != name:
                    answered[number] = name
                    common.set(f"fastcpc/answer/{name}", own_name)
        _wait(deadline, f"{num_ranks - 1} others are expected, fewer have come")
    return dist.PrefixStore(f"fastcpc/{own_name}", common)  # type: ignore[attr-defined]


def _wait(deadline: float, missing: str) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"timed out: {missing}")
    time.sleep(0.02)


@contextmanager
def explained_errors() -> Iterator[None]:
    """Around every collective: what goes wrong in it becomes one line that says who and where."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RunError):
            raise
        raise _explain(error) from error


def _explain(error: RuntimeError) -> RunError:
    group, reason = _all, _first_line(error)
    silent = _silent_ranks()
    if "timed out" not in reason.lower() and "timeout" not in reason.lower():
        return LostContactError(
            f"rank {group.rank} lost contact to the other processes in {group.place}: {reason}; "
            "see the message of the rank that ended first"
        )
    if not silent:
        return RunError(
            f"rank {group.rank} had no answer for {group.timeout:g} s in {group.place}: {reason}; "
            "repeat the command to resume"
        )
    named = "; ".join(f"rank {number} (last seen in {place})" for number, place in silent)
    return RunError(
        f"no answer for {group.timeout:g} s (parallel.timeout) in {group.place} from {named}; look at that process's "
        "log and machine, then repeat the command to resume"
    )


def _silent_ranks() -> list[tuple[int, str]]:
    """Ranks that do not say that they wait as well, and where they were last seen."""
    store = _all.store
    if store is None:
        return []
    others = [number for number in range(_all.size) if number != _all.rank]
    try:
        store.set(f"waits/{_all.rank}", "1")
        deadline = time.monotonic() + GATHER_SECONDS
        while True:
            silent = [number for number in others if not store.check([f"waits/{number}"])]
            if not silent or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        known = [(n, store.get(f"place/{n}").decode() if store.check([f"place/{n}"]) else "the start") for n in silent]
    except RuntimeError:  # the store lives with torchrun on the first node, which may be what went away
        return []
    return known


def _first_line(error: BaseException) -> str:
    """An error's text on one line, without the place in torch's own sources."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rsplit("] ", 1)[-1]


def _environment(name: str, absent: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return absent
    if not text.isdigit() or (name == "WORLD_SIZE" and int(text) < 1):
        raise InputError(f"{name} is {text!r}: expected a whole number, as torchrun sets it")
    return int(text)
