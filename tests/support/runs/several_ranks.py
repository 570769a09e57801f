"""Runs functions on several ranks: real processes that meet over gloo on 127.0.0.1. Not a test itself.

The ranks are forked from one fresh interpreter that has already imported torch. torchrun imports everything again for
each rank. Tests of the command use torchrun itself.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[2]
HELPERS = [SUPPORT.parent, *(SUPPORT.parent / name for name in ("runs", "data", "checkpoints", "devices"))]
TIME_LIMIT = 600  # seconds; only for what hangs
JOBS = "jobs"  # in place of MODULE:FUNCTION


def free_port() -> int:
    """A port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """The environment of a process that can import the project and these helpers, on one core.

    Arrow's allocator would start a thread when it is imported. The ranks are forks, whose parent must have no threads.
    """
    paths = os.pathsep.join([str(ROOT), *map(str, HELPERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "RANK", "WORLD"))}
    return kept | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


def run_to_end(
    command: Sequence[str], limit: float = TIME_LIMIT, check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run a command in ``environment()``; returns its exit code and its output as text.

    After limit seconds the command is killed with its ranks. ``subprocess.run`` kills the command alone, then waits
    without a limit for the ranks, which hold its pipes open. AssertionError with the output after such a kill, and
    with check also where the exit code is not 0.
    """
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"killed after {limit} seconds\n" + "".join(end_node(process))) from None
    assert not check or process.returncode == 0, output + errors
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def on_ranks(num_ranks: int, function: str, *arguments: Any, restarts: int = 0, limit: float = TIME_LIMIT) -> str:
    """Run ``MODULE:FUNCTION`` with these arguments, as text, on every rank; returns what they print.

    restarts: how often all ranks are started again after one has failed; they read the count as under torchrun.
    AssertionError where a rank fails in the last start.
    """
    command = [sys.executable, str(Path(__file__)), str(num_ranks), str(restarts), function, *map(str, arguments)]
    return run_to_end(command, limit).stdout


@dataclass(frozen=True)
class Jobs:
    """The results of jobs: folder, and the error output of each job by name, empty where it succeeded."""

    folder: Path
    errors: Mapping[str, str]

    def result(self, name: str) -> Path:
        """The folder of a job that succeeded. AssertionError with its output otherwise."""
        assert not self.errors[name], f"job {name} failed:\n{self.errors[name]}"
        return self.folder / name


def run_jobs(num_ranks: int, folder: Path, jobs: Mapping[str, Sequence[Sequence[Any]]]) -> Jobs:
    """Run jobs one after the other, each on ranks of its own: an error in one leaves the others alone.

    jobs: name -> its calls in order, each ``[MODULE:FUNCTION, argument, ...]`` with arguments as text. The first call
    that fails on any rank ends its job.
    """
    command = [sys.executable, str(Path(__file__)), str(num_ranks), "0", JOBS, json.dumps(jobs, default=str)]
    return Jobs(folder, json.loads(run_to_end(command).stdout))


def torchrun(num_ranks: int, *arguments: str, options: tuple[str, ...] = ("--standalone",)) -> list[str]:
    """The command line of torchrun on this machine: ``-m MODULE ...`` or ``FILE ...``."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", *options),
        *(f"--nproc-per-node={num_ranks}", *arguments),
    ]


def start_node(port: int, *arguments: str) -> "subprocess.Popen[str]":
    """torchrun as on one of two machines, with one rank, for ``FILE ...``. The first node holds the rendezvous.

    The other node notices a lost one after some seconds; it may be started again. The caller ends it (``end_node``).
    """
    options = (
        *("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=fastcpc-test"),
        *("--max-restarts=3", "--monitor-interval=0.1", "--rdzv-conf=keep_alive_interval=1,keep_alive_max_attempt=3"),
    )
    return subprocess.Popen(
        torchrun(1, *arguments, options=options),
        # otherwise torchrun gives a node that joins later the address of a store that no longer exists
        env=environment() | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_port(port: int, process: "subprocess.Popen[str]") -> None:
    """Wait until the first node, which holds the rendezvous, listens on this port."""
    deadline = time.monotonic() + TIME_LIMIT
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the first node does not listen"
        time.sleep(0.05)


def end_node(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Kill torchrun and its ranks, each of which is a session of its own; returns the output."""
    if process.poll() is None:
        for number in (*_children(process.pid), process.pid):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
    return process.communicate()


def _children(parent: int) -> list[int]:
    """The living child processes of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def _main(num_ranks: int, restarts: int, function: str, arguments: list[str]) -> int:
    # the ranks of every fork inherit this setting, whose modules take seconds to import
    importlib.import_module("torch").use_deterministic_algorithms(True)
    if function == JOBS:
        print(json.dumps({name: _job_error(num_ranks, calls) for name, calls in json.loads(arguments[0]).items()}))
        return 0
    for start in range(restarts + 1):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(start)
        if not _start(num_ranks, _body(function), arguments):
            return 0
    return 1


def _job_error(num_ranks: int, calls: list[list[Any]]) -> str:
    """Run the calls of a job; the output of the ranks where one failed, else an empty text."""
    for function, *arguments in calls:
        with tempfile.TemporaryFile() as output:
            failed = _start(num_ranks, _body(function), [str(argument) for argument in arguments], output.fileno())
            output.seek(0)
            if failed:
                return f"{function} failed on {failed} of {num_ranks} ranks\n{output.read().decode()}"
    return ""


def _body(function: str) -> Any:
    module_name, name = function.split(":")
    return getattr(importlib.import_module(module_name), name)


def _start(num_ranks: int, body: Any, arguments: list[str], output: int | None = None) -> int:
    """Fork the ranks and wait for them; returns how many have failed. output: a file for what they print."""
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lack the other threads and may wait for them"
    port = free_port()
    children = []
    for rank in range(num_ranks):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(num_ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            if output is not None:
                os.dup2(output, 1)
                os.dup2(output, 2)
            os._exit(_child(body, arguments))
        children.append(child)
    problems = 0
    for _ in children:
        child, status = os.wait()
        if status:
            problems += 1
            for other in children:
                if other != child:
                    _end(other)
    return problems


def _child(body: Any, arguments: list[str]) -> int:
    from fastcpc import distributed

    try:
        with distributed.joined_process_group():
            distributed.connect(importlib.import_module("torch").device("cpu"), 60.0)
            body(*arguments)
        sys.stdout.flush()
        return 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
