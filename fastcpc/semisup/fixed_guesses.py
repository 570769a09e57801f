"""Guesses of the fixed network in a pass, for several steps at once where that saves launches.

The training pass uses it. The fixed network is in evaluation mode, where nothing couples the images of a batch. So its
guesses do not depend on the training, and only by rounding on the batch that they are computed in.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from fastcpc.data.loaders.base import Batch


def fixed_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits (B, K) of a network in evaluation mode; compiled as one graph. images: (B, C, H, W)."""
    logits_BK: Tensor = network(images)
    return logits_BK


class FixedGuesses:
    """Fetches the batches of a pass in groups and guesses for a whole group.

    Groups start at multiples of ``steps``, and each has the same shape: missing steps at the start of a resumed pass
    and at its end are zero images. So a resumed pass gets bit-identical guesses.
    """

    def __init__(
        self, guess: Callable[[Tensor], Tensor], num_labelled: int, steps: int, start: int, num_views: int = 2
    ) -> None:
        """guess: logits of images, without a gradient. num_labelled: first rows of each view, which get no guess.

        steps: of a group. start: the first step of this part of the pass. num_views: the first views of a batch, which
        get guesses.
        """
        self._guess, self._num_labelled, self._steps, self._start = guess, num_labelled, steps, start
        self._num_views = num_views
        self._group: list[Batch] = []
        self._offset = 0
        self._logits: deque[Tensor] = deque()

    def batches(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of a stream in order. The first one of a group is yielded when the whole group is fetched."""
        step = self._start
        while True:
            self._offset = step % self._steps
            self._group = list(islice(stream, self._steps - self._offset))
            if not self._group:
                return
            step += len(self._group)
            yield from self._group

    def next_logits(self) -> Tensor:
        """Logits (num_views U, K) for the batch yielded last: its U unlabelled images in view 1, then in view 2."""
        if not self._logits:
            self._logits.extend(self._guess_group())
        return self._logits.popleft()

    def _guess_group(self) -> Sequence[Tensor]:
        parts = [[view[self._num_labelled :] for view in batch.views[: self._num_views]] for batch in self._group]
        missing = self._steps - self._offset - len(parts)
        blank = [torch.zeros_like(part) for part in parts[0]] if self._offset or missing else []
        images = [*blank * self._offset, *(part for pair in parts for part in pair), *blank * missing]
        logits = self._guess(torch.cat(images, dim=0)).chunk(self._steps)
        return logits[self._offset : self._offset + len(parts)]
