"""The loader for image files: draws random numbers, and finishes the views of a decoder.

``factory`` creates it with a decoder. The loader draws all random numbers on the CPU, one batch at a time. The decoder
decodes each image of a batch once and crops all its views. It finishes the views that it can. On a GPU, one Triton
kernel makes the operations of each strong view; the loader checks it as ``MemoryLoader`` does.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastcpc.data.augment import fused_check
from fastcpc.data.augment.batched import StrongAugmenter, send
from fastcpc.data.augment.cpu_ops import CpuStrongAugmenter, StrongDraw
from fastcpc.data.augment.fused import FusedOperations
from fastcpc.data.augment.normalize import Normaliser, TensorNormaliser
from fastcpc.data.augment.policies import StrongPolicy, WeakPolicy
from fastcpc.data.augment.random_crop import CropGeometry
from fastcpc.data.augment.styles import STYLES
from fastcpc.data.dataset import RGB, ImageTransform
from fastcpc.data.loaders.base import Batch, ViewName, check_stream
from fastcpc.data.loaders.buffers import Buffers
from fastcpc.data.rng import generator

CHUNK = 64  # images decoded at a time: limits memory for large batches
WHOLE = WeakPolicy(flip=False, padding=0)  # the kernel of strong views gets crops


@dataclass(frozen=True)
class DecodeRequest:
    """Views to crop from some images.

    rows: int64 (B,), B of 1 to CHUNK. drawn: for each view, the result of ``CropGeometry.draw``. strong: for each view,
    the operations on its crops; None for a test or weak view. in_place: True gives a grey square for an image that
    cannot be read. Scoring needs it, because each index must occur exactly once. False takes a replacement image with
    its index. ends_batch: whether it is the last request of its batch.
    """

    rows: np.ndarray
    drawn: tuple[np.ndarray, ...]
    strong: tuple[StrongDraw | None, ...]
    in_place: bool
    ends_batch: bool = True


@dataclass(frozen=True)
class DecodedChunk:
    """The answer of a decoder to a request.

    request: what it answers. rows: int64 (B,), with the rows of replacement images. views: (B, S, S, 3) each, on the
    CPU or on the loader's device. uint8 views are crops. float32 views are finished.
    """

    request: DecodeRequest
    rows: np.ndarray
    views: tuple[Tensor, ...]


class Decoder(Protocol):
    """Decodes each image of a request once.

    num_decoded: number of images decoded so far, with those decoded ahead.
    """

    @property
    def num_decoded(self) -> int: ...

    def decode(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedChunk]:
        """Answer requests in their order and decode ahead. The caller must close the iterator."""
        ...


def replacement_order(request: DecodeRequest, position: int, num_samples: int) -> Iterator[int]:
    """Rows of possible replacement images, best first.

    The rows of the request come first, starting after the position, because they come from the same list. Then come
    the rows that follow in the split.
    """
    own = request.rows.tolist()
    yield from own[position + 1 :] + own[:position]
    yield from ((own[position] + step) % num_samples for step in range(1, num_samples))


class ImageLoader:
    """Batches from image files."""

    def __init__(
        self,
        num_samples: int,
        transform: ImageTransform,
        mean: Sequence[float],
        std: Sequence[float],
        strong: StrongPolicy | None,
        decoder: Decoder,
        device: torch.device,
    ) -> None:
        """mean, std: of red, green and blue, of pixels scaled to [0, 1]. strong: None if no caller requests strong
        views."""
        self.num_samples = num_samples
        self.decoder = decoder
        self.device = device
        self._geometry = CropGeometry(transform)
        self._normalise = TensorNormaliser(mean, std, device, torch.channels_last)
        self._buffers = Buffers()
        self._augmenter = None if strong is None else StrongAugmenter(strong, transform.crop, device)
        self._fused = None  # one kernel per strong view, on a GPU
        if self._augmenter is not None and strong is not None and device.type == "cuda":
            problem = fused_check.kernel_problem(RGB, transform.crop, WHOLE, strong, device)
            self._fused = None if problem else FusedOperations(self._augmenter, self._normalise)
        self._one_by_one = None  # for uint8 crops of a decoder on a CPU
        if strong is not None and device.type == "cpu":
            self._one_by_one = CpuStrongAugmenter(Normaliser(mean, std, transform.crop), STYLES[strong.style].fill)

    def stream(
        self,
        batches: Sequence[Tensor],
        views: Sequence[ViewName],
        seed: int,
        start: int = 0,
        part: Tensor | None = None,
    ) -> Iterator[Batch]:
        """See ``Loader.stream``. Images have the memory format channels_last.

        Raises ValueError for unknown views, empty batches and indices out of range.
        """
        check_stream(self.num_samples, batches, views, start, has_strong=self._augmenter is not None)
        return self._serve(batches, tuple(views), seed, start, part)

    def _serve(
        self, batches: Sequence[Tensor], views: tuple[ViewName, ...], seed: int, start: int, part: Tensor | None
    ) -> Iterator[Batch]:
        requests = self._requests(batches, views, seed, start, part)
        with closing(self.decoder.decode(requests)) as decoded:  # type: ignore[type-var]
            chunks: list[DecodedChunk] = []
            for chunk in decoded:
                chunks.append(chunk)
                if chunk.request.ends_batch:
                    yield self._join(chunks)
                    chunks = []

    def _join(self, chunks: list[DecodedChunk]) -> Batch:
        """A batch of the chunks with all its images."""
        index = torch.from_numpy(np.concatenate([chunk.rows for chunk in chunks]))
        views = (
            self._finish([chunk.views[v] for chunk in chunks], [chunk.request.strong[v] for chunk in chunks])
            for v in range(len(chunks[0].views))
        )
        return Batch(send(index, self.device), tuple(views))

    def _requests(
        self,
        batches: Sequence[Tensor],
        views: tuple[ViewName, ...],
        seed: int,
        start: int,
        part: Tensor | None,
    ) -> Iterator[DecodeRequest]:
        in_place = all(view == "test" for view in views)
        wanted = slice(None) if part is None else part.numpy()
        for number in range(start, len(batches)):
            rows = batches[number].numpy()
            draws = generator(seed, number)
            drawn, strong = [], []
            for view in views:
                drawn.append(self._geometry.draw(view, len(rows), draws)[wanted])
                strong.append(self._draw_strong(len(rows), draws, part) if view == "strong" else None)
            rows = rows[wanted]
            for first in range(0, len(rows), CHUNK):
                chunk = slice(first, first + CHUNK)
                yield DecodeRequest(
                    rows[chunk],
                    tuple(values[chunk] for values in drawn),
                    tuple(None if both is None else (both[0][:, chunk], both[1][:, chunk]) for both in strong),
                    in_place,
                    ends_batch=first + CHUNK >= len(rows),
                )

    def _draw_strong(self, num_images: int, draws: torch.Generator, part: Tensor | None) -> StrongDraw:
        assert self._augmenter is not None
        groups, rows = self._augmenter.draw(num_images, draws, part)
        return groups.numpy(), rows.numpy()

    def _finish(self, parts: list[Tensor], strong: list[StrongDraw | None]) -> Tensor:
        """Join the parts (B, S, S, 3) of one view of a batch to float32 (B, 3, S, S), channels_last."""
        if len({(part.dtype, part.device.type) for part in parts}) > 1:  # some from the cache, some decoded
            return torch.cat([self._finish([part], [draw]) for part, draw in zip(parts, strong, strict=True)])
        if parts[0].is_floating_point():
            return self._on_device(parts).permute(0, 3, 1, 2)
        draws = [both for both in strong if both is not None]
        if not draws:
            return self._normalise(self._on_device(parts).permute(0, 3, 1, 2))
        if self._one_by_one is not None:
            views = [self._strong_views(crops, drawn) for crops, drawn in zip(parts, draws, strict=True)]
            return self._on_device(views).permute(0, 3, 1, 2)
        assert self._augmenter is not None
        both = (torch.from_numpy(np.concatenate([draw[i] for draw in draws], axis=1)) for i in range(2))
        whole = self._on_device(parts)
        if self._fused is not None:
            return self._fused.make(whole, *both)
        plan = self._augmenter.arrange(*both)
        moves = None if plan.moves is None else send(plan.moves, self.device)
        images = whole if moves is None else whole.index_select(0, moves[0])
        plan = replace(plan, strengths=send(plan.strengths, self.device), moves=moves)
        return self._normalise(self._augmenter.apply(images.permute(0, 3, 1, 2).contiguous(), plan))

    def _strong_views(self, crops: Tensor, strong: StrongDraw) -> Tensor:
        """Apply the drawn operations to crops (B, S, S, 3) on a CPU. Returns float32."""
        assert self._one_by_one is not None
        views = self._buffers.take(tuple(crops.shape), "float32")
        for i, crop in enumerate(crops.numpy()):
            self._one_by_one.put(crop, strong, i, views[i])
        return torch.from_numpy(views)

    def _on_device(self, parts: list[Tensor]) -> Tensor:
        """Join the parts on the device."""
        if parts[0].device.type != "cpu":  # a decoder on the GPU
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        if len(parts) == 1:
            return send(parts[0], self.device)
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        if self.device.type == "cuda":  # joined where the GPU copies from; torch reuses this memory after the copy
            pinned = torch.empty(shape, dtype=parts[0].dtype, pin_memory=True)
            return torch.cat(parts, out=pinned).to(self.device, non_blocking=True)
        whole = torch.from_numpy(self._buffers.take(shape, str(parts[0].dtype).removeprefix("torch.")))
        return send(torch.cat(parts, out=whole), self.device)
