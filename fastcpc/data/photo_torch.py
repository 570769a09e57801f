"""The decoder that runs everywhere: Pillow in threads. Pillow decodes and resamples without Python's lock."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from fastcpc.data.geometry import PhotoGeometry
from fastcpc.data.photo_feed import Cut, Request, stand_ins
from fastcpc.data.photo_files import BadImage, BadImages, read_photo
from fastcpc.data.split import PhotoTransform
from fastcpc.errors import RunError

AHEAD = 2  # requests that are being decoded while one is used


class ThreadDecoder:
    """Decodes by Pillow; its threads last as long as it does."""

    def __init__(
        self,
        paths: tuple[str, ...],
        transform: PhotoTransform,
        fill: tuple[int, int, int],
        bad: BadImages,
        num_threads: int,
    ) -> None:
        """fill: colour of what stands for a photo that cannot be read. num_threads: 1 or more."""
        self.num_decoded = 0
        self._paths, self._side, self._fill, self._bad = paths, transform.crop, fill, bad
        self._geometry = PhotoGeometry(transform)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="photo")

    def cut(self, requests: Iterable[Request]) -> Iterator[Cut]:
        """See ``Decoder.cut``."""
        waiting: deque[tuple[Request, np.ndarray, list[Future[None]]]] = deque()
        todo = iter(requests)
        try:
            while True:
                while len(waiting) <= AHEAD and (request := next(todo, None)) is not None:
                    waiting.append(self._submit(request))
                if not waiting:
                    return
                yield self._collect(*waiting.popleft())
        finally:
            for _, _, futures in waiting:
                for future in futures:
                    future.cancel()

    def _submit(self, request: Request) -> tuple[Request, np.ndarray, list[Future[None]]]:
        num_images, num_views = len(request.rows), len(request.drawn)
        crops = np.empty((num_views, num_images, self._side, self._side, 3), np.uint8)
        futures = [
            self._pool.submit(self._one, row, position, request, crops)
            for position, row in enumerate(request.rows.tolist())
        ]
        self.num_decoded += num_images
        return request, crops, futures

    def _one(self, row: int, position: int, request: Request, crops: np.ndarray) -> None:
        """Decode one photo and cut its views. Raises BadImage."""
        if row in self._bad.rows:
            raise BadImage("known to be bad")
        photo = read_photo(self._paths[row])
        size = np.array([[photo.height, photo.width]])
        for view, drawn in enumerate(request.drawn):
            top, left, bottom, right = self._geometry.boxes(drawn[position : position + 1], size)[0].tolist()
            box = (min(left, right), top, max(left, right), bottom)
            cut = photo.resize((self._side, self._side), Image.Resampling.BILINEAR, box)
            crops[view, position] = np.asarray(cut)[:, :: -1 if left > right else 1]

    def _collect(self, request: Request, crops: np.ndarray, futures: list[Future[None]]) -> Cut:
        rows = request.rows.copy()
        for position, future in enumerate(futures):
            try:
                future.result()
            except BadImage as fault:
                self._bad.add(int(rows[position]), str(fault))
                if request.in_place:
                    crops[:, position] = self._fill
                else:
                    rows[position] = self._replace(request, position, crops)
        return Cut(rows, torch.from_numpy(crops))

    def _replace(self, request: Request, position: int, crops: np.ndarray) -> int:
        """Cut another photo with the random numbers of this position; returns its row."""
        for row in stand_ins(request, position, len(self._paths)):
            try:
                self._one(row, position, request, crops)
            except BadImage as fault:
                self._bad.add(row, str(fault))
            else:
                self.num_decoded += 1
                return row
        raise RunError("no image of the data set can be read")
