"""What is written while the run goes on: one piece of work at a time, on a thread of its own."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from fastcpc.errors import RunError

logger = logging.getLogger("fastcpc")


class AsyncWriter:
    """Does pieces of writing in the order they come; the next is not begun before the one before has ended well.

    A context: when it is left nothing is under way any more, so that what guards the folder may be let go.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Start this piece of work after the one before; raises what went wrong with that one."""
        self.finish()
        # no daemon: an interpreter that ends by whatever way waits for it
        self._thread = threading.Thread(target=self._do, args=(work,), name="fastcpc-writer")
        self._thread.start()

    def finish(self) -> None:
        """Wait until nothing is under way; raises what went wrong, once."""
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
        try:  # the run ends by another error, which is the one to be told
            self.finish()
        except RunError as failed:
            logger.warning("%s", failed)
