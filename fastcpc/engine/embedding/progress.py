"""The progress of fastcpc-embed: images that all ranks have embedded, per second, and the time that is left.

The count is that of the state file, so rank 0 sees the images of all ranks. A rank's own images count at once, those
of other ranks after their next sync.
"""

import logging
import sys
import time

from tqdm import tqdm

from fastcpc import distributed
from fastcpc.engine.embedding.store import TODO, EmbeddingStore

logger = logging.getLogger("fastcpc")
LINE_SECONDS = 30.0


class Progress:
    """A bar at a terminal, else a line every 30 seconds; on rank 0 only."""

    def __init__(self, store: EmbeddingStore, num_rows: int) -> None:
        """num_rows: images of all ranks."""
        self._store, self._num_rows = store, num_rows
        self._start = self._last = time.monotonic()
        self._first = self._done()
        self._shown = distributed.is_rank0()
        at_terminal = self._shown and sys.stderr.isatty()
        self._bar = tqdm(total=num_rows, initial=self._first, unit="img", desc="embedding") if at_terminal else None

    def _done(self) -> int:
        return int((self._store.states() != TODO).sum()) + sum(len(states) for _, states in self._store.waiting)

    def step(self) -> None:
        """Show the progress, if it is time."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._done() - self._bar.n)
        elif self._shown and now - self._last >= LINE_SECONDS:
            self._last, done = now, self._done()
            rate = (done - self._first) / (now - self._start)
            left = f", {(self._num_rows - done) / rate:,.0f} s left" if rate else ""
            logger.info("embedded %s of %s images (%.0f images/s%s)", f"{done:,}", f"{self._num_rows:,}", rate, left)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
