"""Work on the images of a store in several processes, each with a pipe of its own.

``concurrent.futures`` has one pipe for the results of all processes. Where one dies while it writes, the rest of its
message never comes, and the pool waits for it without end. A pipe with one writer ends with its writer.

A worker process imports this module. It does not import torch.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import numpy as np

from fastcpc.data.image_store import ImageStore
from fastcpc.errors import RunError

AHEAD = 2  # results of a process that are received before their turn

Result = TypeVar("Result")


def in_processes(
    work: Callable[[ImageStore], Result], images: ImageStore, jobs: int, chunk: int
) -> Generator[Result, None, None]:
    """Call work for each chunk of a store in some of ``jobs`` processes; yields the results in their order.

    work: must be a pickle, as must its results; an exception that it raises is raised here. chunk: images per call.
    Chunk i is the work of process i % jobs. A process makes only a few chunks that are not yet due. All processes are
    killed when the caller closes the iterator, and they end when this process ends. Raises RunError when one dies.
    """
    firsts = range(0, len(images), chunk)
    workers: list[_Worker] = []
    try:
        for number in range(min(jobs, len(firsts))):
            rows = [np.arange(first, min(first + chunk, len(images))) for first in firsts[number::jobs]]
            workers.append(worker := _Worker(len(rows)))
            worker.start(work, images.take(np.concatenate(rows)), chunk)
        for number in range(len(firsts)):
            worker = workers[number % jobs]
            while not worker.results:
                _receive(workers)
            result = worker.results.popleft()
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, the pipe of its results, those received before their turn, and how many are to come."""

    def __init__(self, num_results: int) -> None:
        # spawn, not fork: threads of other libraries in the parent hold locks that a fork would never release
        self._context = multiprocessing.get_context("spawn")
        self.reader, self._writer = self._context.Pipe(duplex=False)
        self._process: BaseProcess | None = None
        self.results: deque[Any] = deque()
        self.num_to_come = num_results

    def start(self, work: Callable[[ImageStore], Any], images: ImageStore, chunk: int) -> None:
        """Start the process. Raises RunError where the system refuses it."""
        process = self._context.Process(target=_work, args=(work, images, chunk, self._writer), daemon=True)
        resource_tracker.ensure_running()  # its start would unblock the signal
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the process inherits it: Ctrl-C is for us
        try:
            process.start()
            self._process = process
        except OSError as error:
            raise RunError(f"a decoding process cannot be started ({error.strerror}): try fewer --jobs") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._writer.close()  # so that the pipe ends when the process does

    def end(self) -> None:
        """Kill the process, if it has started."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._writer.close()
        self.reader.close()


def _receive(workers: list[_Worker]) -> None:
    """Wait for a result of any process, except where enough wait already."""
    due = [worker for worker in workers if worker.num_to_come and len(worker.results) < AHEAD]
    ready = wait([worker.reader for worker in due])
    for worker in (worker for worker in due if worker.reader in ready):
        try:
            worker.results.append(worker.reader.recv())
        except (EOFError, OSError):
            raise RunError("a decoding process died, out of memory perhaps: try fewer --jobs") from None
        worker.num_to_come -= 1


def _work(work: Callable[[ImageStore], Any], images: ImageStore, chunk: int, writer: Connection) -> None:
    """What a process does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with suppress(BrokenPipeError):  # the parent is gone
        for first in range(0, len(images), chunk):
            try:
                result = work(images.take(np.arange(first, min(first + chunk, len(images)))))
            except Exception as error:
                result = error
            writer.send(result)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
