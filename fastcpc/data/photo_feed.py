"""The feed for image files: what is drawn and what happens after decoding; a decoder is plugged in.

All that is random is drawn here, a batch at a time, on the CPU. A decoder decodes each image of a batch once, cuts
every view from it and normalises those that are ready; the strong views' operations run on whole batches on the device.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastcpc.data.augment import StrongAugmenter, StrongPlan, send
from fastcpc.data.feed import Batch, ViewName, check_stream
from fastcpc.data.geometry import PhotoGeometry
from fastcpc.data.levels import scaling
from fastcpc.data.photo_pixels import Buffers
from fastcpc.data.policies import StrongPolicy
from fastcpc.data.seeds import generator
from fastcpc.data.split import RGB, PhotoTransform

CHUNK = 64  # images that are decoded at a time: bounds memory where batches are large


@dataclass(frozen=True)
class Request:
    """Views to cut from some photos.

    rows: int64 (B,), B of 1 to CHUNK. drawn: for each view, of ``PhotoGeometry.draw``. in_levels: for each view,
    whether it stays uint8, for operations to come. in_place: a photo that cannot be read keeps its place as a grey
    square (scoring, where each index must come exactly once); otherwise another photo takes its place, index and all.
    """

    rows: np.ndarray
    drawn: tuple[np.ndarray, ...]
    in_levels: tuple[bool, ...]
    in_place: bool


@dataclass(frozen=True)
class Cut:
    """What a decoder makes of a request: int64 rows (B,), those of photos that took a place included; for each view
    (B, S, S, 3), on the CPU or on the feed's device: uint8, or float32 where it is normalised already."""

    rows: np.ndarray
    views: tuple[Tensor, ...]


class Decoder(Protocol):
    """Decodes each photo of a request once.

    num_decoded: photos decoded so far, those decoded ahead included.
    """

    @property
    def num_decoded(self) -> int: ...

    def cut(self, requests: Iterable[Request]) -> Iterator[Cut]:
        """Answer requests in their order, working ahead. The iterator must be closed."""
        ...


def stand_ins(request: Request, position: int, num_samples: int) -> Iterator[int]:
    """Rows that may take the place of a photo that cannot be read, best first: the request's own, which come from the
    same list, from the position on; then those that follow in the split."""
    own = request.rows.tolist()
    yield from own[position + 1 :] + own[:position]
    yield from ((own[position] + step) % num_samples for step in range(1, num_samples))


class PhotoFeed:
    """Batches from image files."""

    def __init__(
        self,
        num_samples: int,
        transform: PhotoTransform,
        mean: Sequence[float],
        std: Sequence[float],
        strong: StrongPolicy | None,
        decoder: Decoder,
        device: torch.device,
    ) -> None:
        """mean, std: of red, green and blue, of pixels scaled to [0, 1]. strong: None where no strong view will be
        asked for."""
        self.num_samples = num_samples
        self.decoder = decoder
        self.device = device
        self._geometry = PhotoGeometry(transform)
        self._scale, self._shift = (
            torch.from_numpy(part_C).view(1, -1, 1, 1).to(device) for part_C in scaling(mean, std)
        )
        self._buffers = Buffers()
        self._augmenter = None if strong is None else StrongAugmenter(strong, transform.crop, device)

    def stream(
        self,
        batches: Sequence[Tensor],
        views: Sequence[ViewName],
        seed: int,
        start: int = 0,
        part: Tensor | None = None,
    ) -> Iterator[Batch]:
        """See ``Feed.stream``; images lie channels_last in memory. Raises ValueError on unknown views, empty batches
        and indices out of range."""
        check_stream(self.num_samples, batches, views, start, has_strong=self._augmenter is not None)
        return self._serve(batches, tuple(views), seed, start, part)

    def _serve(
        self, batches: Sequence[Tensor], views: tuple[ViewName, ...], seed: int, start: int, part: Tensor | None
    ) -> Iterator[Batch]:
        plans: deque[tuple[int, list[StrongPlan | None]]] = deque()  # of batches that are being decoded
        with closing(self.decoder.cut(self._requests(batches, views, seed, start, part, plans))) as cuts:  # type: ignore[type-var]
            for cut in cuts:
                num_chunks, plan_V = plans.popleft()
                parts = [cut, *(next(cuts) for _ in range(num_chunks - 1))]
                index = torch.from_numpy(np.concatenate([part.rows for part in parts]))
                with _one_thread(self.device):
                    made = tuple(self._finish([part.views[v] for part in parts], plan) for v, plan in enumerate(plan_V))
                yield Batch(send(index, self.device), made)

    def _requests(
        self,
        batches: Sequence[Tensor],
        views: tuple[ViewName, ...],
        seed: int,
        start: int,
        part: Tensor | None,
        plans: deque[tuple[int, list[StrongPlan | None]]],
    ) -> Iterator[Request]:
        in_place = all(view == "test" for view in views)
        for number in range(start, len(batches)):
            rows = batches[number].numpy()
            draws = generator(seed, number)
            drawn, plan_V = [], []
            for view in views:
                numbers = self._geometry.draw(view, len(rows), draws)
                drawn.append(numbers if part is None else numbers[part.numpy()])
                strong = view == "strong" and self._augmenter is not None
                plan_V.append(self._augmenter.plan(len(rows), draws, part) if strong else None)  # type: ignore[union-attr]
            if part is not None:
                rows = rows[part.numpy()]
            plans.append((-(-len(rows) // CHUNK), plan_V))
            for first in range(0, len(rows), CHUNK):
                chunk = slice(first, first + CHUNK)
                in_levels = tuple(plan is not None for plan in plan_V)
                yield Request(rows[chunk], tuple(values[chunk] for values in drawn), in_levels, in_place)

    def _finish(self, parts: list[Tensor], plan: StrongPlan | None) -> Tensor:
        """One view of a batch from its parts, (B, S, S, 3) each."""
        crops = parts[0] if len(parts) == 1 else self._joined(parts)
        if crops.device != self.device:
            crops = send(crops, self.device)
        if plan is None:
            images = crops.permute(0, 3, 1, 2)
            return images if images.is_floating_point() else self._normalise(images)
        assert self._augmenter is not None
        if self.device.type == "cpu":
            images = torch.from_numpy(self._buffers.take((len(crops), RGB, *crops.shape[1:3]), "uint8"))
            images.copy_(crops.permute(0, 3, 1, 2))
            self._augmenter.apply_each(images, plan)
            return self._normalise(images)
        moves = None if plan.moves is None else send(plan.moves, self.device)
        images = crops if moves is None else crops.index_select(0, moves[0])
        plan = replace(plan, strengths=send(plan.strengths, self.device), moves=moves)
        return self._normalise(self._augmenter.apply(images.permute(0, 3, 1, 2).contiguous(), plan))

    def _joined(self, parts: list[Tensor]) -> Tensor:
        if parts[0].device.type != "cpu":
            return torch.cat(parts)
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        whole = torch.from_numpy(self._buffers.take(shape, str(parts[0].dtype).removeprefix("torch.")))
        return torch.cat(parts, out=whole)

    def _normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, S, S) to float32, channels_last."""
        if images.device.type != "cpu":
            return images.to(torch.float32, memory_format=torch.channels_last).mul_(self._scale).add_(self._shift)
        num_images, channels, height, width = images.shape
        made = torch.from_numpy(self._buffers.take((num_images, height, width, channels), "float32")).permute(
            0, 3, 1, 2
        )
        for image, source in zip(made, images, strict=True):  # each fits a core's cache
            image.copy_(source.to(torch.float32).mul_(self._scale[0]).add_(self._shift[0]))
        return made


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, keep torch to the calling thread: the others decode meanwhile, and where threads outnumber cores the
    many small operations would wait for each other (measured: 10 times as long)."""
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
