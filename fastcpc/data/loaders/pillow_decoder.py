"""The decoder by Pillow in threads, which also crops cached images on a CPU.

``factory`` creates it. It runs everywhere. Pillow and NumPy release Python's lock while they decode, resample and copy.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastcpc.data.augment.cpu_ops import CpuStrongAugmenter
from fastcpc.data.augment.normalize import Normaliser, PixelArray
from fastcpc.data.augment.random_crop import CropGeometry
from fastcpc.data.dataset import ImageTransform
from fastcpc.data.image_files import RESAMPLING, BadImage, decode_image
from fastcpc.data.loaders.buffers import Buffers
from fastcpc.data.loaders.image_loader import DecodedChunk, DecodeRequest, replacement_order
from fastcpc.data.loaders.split_files import BadImages, FileBytes
from fastcpc.data.prepare.cache import ImageCache
from fastcpc.errors import RunError

AHEAD = 2  # requests in progress while the caller uses one
PART = 8  # images that a thread takes at a time


@dataclass
class Started:
    """A request in progress: the futures of its threads, and the function that waits for them and answers it."""

    futures: Sequence[Future[Any]]
    collect: Callable[[], DecodedChunk]


def work_ahead(requests: Iterable[DecodeRequest], submit: Callable[[DecodeRequest], Started]) -> Iterator[DecodedChunk]:
    """Answer requests in their order, with AHEAD more in progress.

    If the caller closes the iterator early, work that has not started is cancelled. Work that has started keeps the
    memory of its request until it is done.
    """
    waiting: deque[Started] = deque()
    todo = iter(requests)
    try:
        while True:
            while len(waiting) <= AHEAD and (request := next(todo, None)) is not None:
                waiting.append(submit(request))
            if not waiting:
                return
            yield waiting.popleft().collect()
    finally:
        for started in waiting:
            for future in started.futures:
                future.cancel()


@dataclass
class _DecodeJob:
    """What the threads need to answer a request.

    views: memory per view. mirror_VB: which images to mirror. places: crops per view (``PillowDecoder._places``), if
    all sizes are known before decoding, else None.
    """

    request: DecodeRequest
    views: list[PixelArray]
    mirror_VB: list[np.ndarray]
    places: list[np.ndarray] | None


class PillowDecoder:
    """Decodes by Pillow, or reads images from a cache. Its threads live as long as the decoder."""

    def __init__(
        self,
        files: FileBytes,
        transform: ImageTransform,
        normaliser: Normaliser,
        bad: BadImages,
        num_threads: int,
        *,
        cache: ImageCache | None = None,
        normalise: bool = True,
        strong_fill: int = 0,
    ) -> None:
        """num_threads: 1 or more. cache: images that need no decoding. strong_fill: see ``CpuStrongAugmenter``.

        normalise: False leaves all views as uint8 levels. This sends a quarter of the bytes to a GPU.
        """
        self.num_decoded = 0
        self.files, self._side, self.bad, self._cache = files, transform.crop, bad, cache
        self._normaliser, self._normalise, self._strong_fill = normaliser, normalise, strong_fill
        self._fill = np.array([round(255 * value) for value in normaliser.mean], np.uint8)
        self._geometry, self._resampling = CropGeometry(transform), RESAMPLING[transform.interpolation]
        self._buffers = Buffers()
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="photo")

    def decode(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedChunk]:
        """See ``Decoder.decode``."""
        return work_ahead(requests, self._submit)

    def _submit(self, request: DecodeRequest) -> Started:
        num_images = len(request.rows)
        shape, dtype = (num_images, self._side, self._side, 3), "float32" if self._normalise else "uint8"
        views = [self._buffers.take(shape, dtype) for _ in request.drawn]
        mirror_VB, places = [self._geometry.mirrored(drawn) for drawn in request.drawn], None
        if self._cache is not None and self._cache.present[request.rows].all():
            # All images at once: per image this takes 80 us for four views, as long as 2 to 3 copies (measured).
            places = [self._places(drawn, self._cache.size_N2[request.rows]) for drawn in request.drawn]
        job = _DecodeJob(request, views, mirror_VB, places)
        parts = [range(first, min(first + PART, num_images)) for first in range(0, num_images, PART)]
        futures = [self._pool.submit(self._some, job, part) for part in parts]
        return Started(futures, lambda: self._collect(job, futures))

    def _places(self, drawn: np.ndarray, sizes_B2: np.ndarray) -> np.ndarray:
        """Crops of a view: random resized crops in the image (B, 4), or corners in the resized image (B, 2)."""
        if self._geometry.is_resized_crop(drawn):
            return self._geometry.boxes(drawn, sizes_B2)
        return self._geometry.corners(drawn, self._geometry.resized(sizes_B2))

    def _some(self, job: _DecodeJob, positions: range) -> list[tuple[int, BadImage]]:
        """Crop the views of the images at these positions. Returns the bad images with their positions."""
        problems = []
        for position in positions:
            try:
                self._one(int(job.request.rows[position]), position, job)
            except BadImage as problem:
                problems.append((position, problem))
        return problems

    def _one(self, row: int, position: int, job: _DecodeJob) -> None:
        """Decode one image and crop its views. Raises BadImage."""
        if row in self.bad.rows:
            raise BadImage("known to be bad")
        image: Image.Image | PixelArray
        if self._cache is not None and self._cache.has(row):
            image = self._cache.image(row)
            height, width = image.shape[:2]
        else:
            image = decode_image(self.files.read(row))
            width, height = image.size
        size, whole = np.array([[height, width]]), None
        for view, drawn in enumerate(job.request.drawn):
            mirror = bool(job.mirror_VB[view][position])
            place = job.places[view][position] if job.places else self._places(drawn[position : position + 1], size)[0]
            if self._geometry.is_resized_crop(drawn):
                crop = _resample(image, place, self._side, mirror, self._resampling)
            else:
                if whole is None:
                    whole = _resize(image, self._geometry.resized(size)[0], self._resampling)
                top, left = place.tolist()
                crop = _crop(whole, top, left, self._side, mirror)
            strong = job.request.strong[view] if self._normalise else None
            if strong is None:
                self._normaliser.put(crop, job.views[view][position])
            else:
                self._augmenter().put(crop, strong, position, job.views[view][position])

    def _augmenter(self) -> CpuStrongAugmenter:
        """The augmenter of this thread."""
        if not hasattr(self._own, "augmenter"):
            self._own.augmenter = CpuStrongAugmenter(self._normaliser, self._strong_fill)
        augmenter: CpuStrongAugmenter = self._own.augmenter
        return augmenter

    def _collect(self, job: _DecodeJob, futures: Sequence[Future[list[tuple[int, BadImage]]]]) -> DecodedChunk:
        request, rows = job.request, job.request.rows.copy()
        for position, problem in [found for future in futures for found in future.result()]:
            self.bad.add(int(rows[position]), str(problem))
            if request.in_place:
                for view in job.views:
                    self._normaliser.put(np.tile(self._fill, (self._side, self._side, 1)), view[position])
            else:
                rows[position] = self._replace(job, position)
        self.num_decoded += len(rows) - (0 if self._cache is None else int(self._cache.present[rows].sum()))
        return DecodedChunk(request, rows, tuple(torch.from_numpy(view) for view in job.views))

    def _replace(self, job: _DecodeJob, position: int) -> int:
        """Crop a replacement image with the random numbers of this position. Returns its row."""
        job = replace(job, places=None)  # they belong to the bad image
        for row in replacement_order(job.request, position, self.bad.num_samples):
            try:
                self._one(row, position, job)
            except BadImage as problem:
                self.bad.add(row, str(problem))
            else:
                return row
        raise RunError("no image of the data set can be read")


def _resize(
    image: Image.Image | PixelArray, size_2: np.ndarray, resampling: Image.Resampling
) -> Image.Image | PixelArray:
    """Resize the whole image to a height and width."""
    height, width = size_2.tolist()
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (height, width):
            return image
        image = Image.fromarray(image)
    return image if image.size == (width, height) else image.resize((width, height), resampling)


def _crop(image: Image.Image | PixelArray, top: int, left: int, side: int, mirror: bool) -> PixelArray:
    """A crop of whole pixels, uint8 (S, S, 3)."""
    if isinstance(image, np.ndarray):
        part = image[top : top + side, left : left + side]
        return part[:, ::-1] if mirror else part
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else square)


def _resample(
    image: Image.Image | PixelArray, box_4: np.ndarray, side: int, mirror: bool, resampling: Image.Resampling
) -> PixelArray:
    """A random resized crop, uint8 (S, S, 3)."""
    top, left, bottom, right = box_4.tolist()
    if isinstance(image, np.ndarray):
        first, start = int(top), int(left)
        image = Image.fromarray(image[first : int(np.ceil(bottom)), start : int(np.ceil(right))])
        top, left, bottom, right = top - first, left - start, bottom - first, right - start
    square = image.resize((side, side), resampling, (left, top, right, bottom))
    return np.asarray(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else square)
