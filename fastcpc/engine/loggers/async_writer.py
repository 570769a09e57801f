"""A background thread that writes files in order, one at a time, while training continues."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from fastcpc.errors import RunError

logger = logging.getLogger("fastcpc")


class AsyncWriter:
    """Runs write jobs in order; a job starts after the previous one succeeded.

    A context: at its exit every job is finished, so that the run folder's lock can be released.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Start a job after the previous one; raises that one's error."""
        self.finish()
        # no daemon thread: the interpreter waits for it at exit
        self._thread = threading.Thread(target=self._do, args=(work,), name="fastcpc-writer")
        self._thread.start()

    def finish(self) -> None:
        """Wait for the present job; raises its error once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error

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
