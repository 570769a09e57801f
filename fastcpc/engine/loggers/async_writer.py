"""A background thread that works in order while training continues: metrics of cleanings, files, checkpoints."""

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable
from types import TracebackType

from fastcpc.errors import InputError, RunError

logger = logging.getLogger("fastcpc")

MOST_JOBS = 2  # unfinished: a checkpoint and the files of a cleaning. Each holds copies in main memory.


class AsyncWriter:
    """Runs jobs in order on a thread; after one fails, those behind it are dropped.

    A context: at its exit every job is finished, so that the run folder's lock can be released.
    """

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], object]] = deque()  # the first one runs
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._runs = False
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Queue a job; waits while MOST_JOBS are unfinished. Raises the error of an earlier one."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._jobs) < MOST_JOBS)
            self._raise_once()
            self._jobs.append(work)
            if not self._runs:
                self._runs = True
                # no daemon thread: the interpreter waits for it at exit
                self._thread = threading.Thread(target=self._work, name="fastcpc-writer")
                self._thread.start()

    def finish(self) -> None:
        """Wait for all jobs; raises an error once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise_once()

    def _raise_once(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            error = _error_of(self._jobs[0])
            with self._changed:
                self._jobs.popleft()
                if error is not None:
                    self._error = error
                    self._jobs.clear()
                self._changed.notify_all()
                if not self._jobs:
                    self._runs = False
                    return

    def __enter__(self) -> "AsyncWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        try:  # the run ends with another error, which is the one to report
            self.finish()
        except RunError as failed:
            logger.warning("%s", failed)


def _error_of(work: Callable[[], object]) -> BaseException | None:
    """Run a job; an error that is not the user's becomes one line that says where it happened."""
    try:
        work()
    except (InputError, RunError) as error:
        return error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        failed = RunError(
            f"the run's files: cannot be made ({what}, in {place.name} of {place.filename}, line {place.lineno}); "
            "repeat the command to resume from the latest checkpoint"
        )
        failed.__cause__ = error
        return failed
    except BaseException as error:
        return error
    return None
