"""The decoder by NVIDIA DALI: prepares requests and finds images that DALI cannot decode.

``factory`` creates it. On a GPU, DALI decodes the images by ``mixed`` decoding, and they stay there.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastcpc.data.augment.normalize import Normaliser
from fastcpc.data.augment.random_crop import CropGeometry
from fastcpc.data.dataset import ImageTransform
from fastcpc.data.image_files import BadImage, decode_image, read_image_header
from fastcpc.data.loaders.buffers import Buffers
from fastcpc.data.loaders.dali_files import bitmap, dali_bytes, dali_decodes
from fastcpc.data.loaders.dali_pipeline import PLACE, DaliPipeline, PipelineInput, PipelineSettings, ViewKind
from fastcpc.data.loaders.image_loader import DecodedChunk, DecodeRequest, replacement_order
from fastcpc.data.loaders.split_files import BadImages, FileBytes
from fastcpc.errors import RunError

UNKNOWN = 0


def reading_stream(device: torch.device) -> Any:
    """The CUDA stream that reads what DALI delivers; None on a CPU."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


class DaliDecoder:
    """Decodes by DALI. It reads the size of an image from its file once and keeps it: crops depend on it."""

    def __init__(
        self,
        files: FileBytes,
        transform: ImageTransform,
        normaliser: Normaliser,
        bad: BadImages,
        num_threads: int,
        device: torch.device,
        hw_load: float = 0.65,
    ) -> None:
        """num_threads: 1 or more. hw_load: share of JPEGs that the GPU's hardware decoder decodes."""
        self.num_decoded = 0
        self.num_built = 0
        self.files, self.bad, self._device = files, bad, device
        self._settings = PipelineSettings(
            normaliser,
            num_threads,
            (device.index or 0) if device.type == "cuda" else None,
            hw_load,
            transform.interpolation,
        )
        self._geometry = CropGeometry(transform)
        self._buffers = Buffers()
        self._sizes_N2 = np.full((bad.num_samples, 2), UNKNOWN, np.int64)
        self._orientation_N = np.ones(bad.num_samples, np.int8)
        self._by_pillow: set[int] = set()  # images that DALI cannot read or would turn in another way
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="image")
        self._idle: dict[tuple[ViewKind, ...], list[DaliPipeline]] = {}
        red, green, blue = (round(255 * value) for value in normaliser.mean)
        self._blank = bitmap(Image.new("RGB", (1, 1), (red, green, blue)))

    def decode(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedChunk]:
        """See ``Decoder.decode``."""
        todo = iter(requests)
        pipeline: DaliPipeline | None = None
        try:
            first = next(todo, None)
            if first is None:
                return
            kinds = self._kinds(first)
            pipeline = self._pipeline(kinds)
            pipeline.put(self._prepare(first))
            while True:
                while pipeline.wants_more and (request := next(todo, None)) is not None:
                    pipeline.put(self._prepare(request))
                try:
                    done = pipeline.run(reading_stream(self._device))
                except RuntimeError as error:
                    broken, pipeline = pipeline, None
                    self._find_culprits(broken.waiting, error)
                    pipeline = self._new_pipeline(kinds)
                    for job in broken.taken_back():
                        pipeline.put(self._prepare(job.request))
                    continue
                if done is None:
                    return
                job, views, index = done
                if not np.array_equal(index, job.rows):
                    raise RuntimeError(f"DALI delivered images {index.tolist()} where {job.rows.tolist()} were due")
                self.num_decoded += len(index)
                yield DecodedChunk(job.request, job.rows, tuple(self._tensor(view) for view in views))
        finally:
            if pipeline is not None:
                self._give_back(pipeline)

    def _kinds(self, request: DecodeRequest) -> tuple[ViewKind, ...]:
        pairs = zip(request.drawn, request.strong, strict=True)
        return tuple(ViewKind(self._geometry.is_resized_crop(drawn), strong is not None) for drawn, strong in pairs)

    def _pipeline(self, kinds: tuple[ViewKind, ...]) -> DaliPipeline:
        idle = self._idle.setdefault(kinds, [])
        return idle.pop() if idle else self._new_pipeline(kinds)

    def _new_pipeline(self, kinds: tuple[ViewKind, ...]) -> DaliPipeline:
        self.num_built += 1
        return DaliPipeline(kinds, self._settings)

    def _give_back(self, pipeline: DaliPipeline) -> None:
        """Empty a pipeline for the next stream. If it fails on a discarded image, it is not used again."""
        try:
            pipeline.drain()
        except RuntimeError:
            return
        self._idle[pipeline.kinds].append(pipeline)

    def _tensor(self, view: Any) -> Tensor:
        """A copy of a view (B, S, S, 3), because the pipeline overwrites its own."""
        if self._device.type == "cuda":
            return torch.utils.dlpack.from_dlpack(view.as_tensor()).clone()
        own = view.as_array()
        kept = self._buffers.take(own.shape, str(own.dtype))
        np.copyto(kept, own)
        return torch.from_numpy(kept)

    # ---- before decoding ----

    def _prepare(self, request: DecodeRequest) -> PipelineInput:
        """Read all files and sizes, and take replacement images for those that cannot be read."""
        rows, files, sizes_B2 = request.rows.copy(), [], np.ones((len(request.rows), 2), np.int64)
        slow = [row for row in dict.fromkeys(rows.tolist()) if row in self._by_pillow or not self._sizes_N2[row, 0]]
        pending = {row: self._pool.submit(self._load, row) for row in slow if row not in self.bad.rows}
        for position, row in enumerate(request.rows.tolist()):
            content = self._readable(row, pending)
            if content is None and not request.in_place:
                for row in replacement_order(request, position, self.bad.num_samples):
                    content = self._readable(row, pending)
                    if content is not None:
                        break
                else:
                    raise RunError("no image of the data set can be read")
                rows[position] = row
            if content is not None:
                sizes_B2[position] = self._sizes_N2[row]
            files.append(np.frombuffer(content or self._blank, np.uint8))
        whole_B2 = self._geometry.resized(sizes_B2)
        places = [self._places(drawn, sizes_B2, whole_B2) for drawn in request.drawn]
        mirrors = [self._geometry.mirrored(drawn) for drawn in request.drawn]
        return PipelineInput(
            request,
            rows,
            files,
            (whole_B2 != sizes_B2).any(axis=1),
            whole_B2.astype(np.float32),
            np.stack(places, axis=1),
            np.stack(mirrors, axis=1).astype(np.int32),
        )

    def _places(self, drawn: np.ndarray, sizes_B2: np.ndarray, whole_B2: np.ndarray) -> np.ndarray:
        """The crop of each image for a view, float32 (B, 4), as ``PLACE`` says.

        DALI takes the corner of a crop as a share of the free space. It gives the whole pixel of other decoders.
        """
        if self._geometry.is_resized_crop(drawn):
            return self._geometry.boxes(drawn, sizes_B2).astype(np.float32)
        place = np.zeros((len(drawn), PLACE), np.float32)
        room_B2 = whole_B2 - self._geometry.transform.crop
        place[:, :2] = (self._geometry.corners(drawn, whole_B2) / np.maximum(room_B2, 1))[:, ::-1]
        return place

    def _readable(self, row: int, pending: dict[int, Future[bytes]]) -> bytes | None:
        """An image in a form that DALI reads; None if it cannot be read. pending: images that threads load."""
        if row in self.bad.rows:
            return None
        try:
            return pending.pop(row).result() if row in pending else self._load(row)
        except BadImage as problem:
            self.bad.add(row, str(problem))
            return None

    def _load(self, row: int) -> bytes:
        """Read an image, and its size if it is unknown. Raises BadImage. Threads call it for different rows."""
        content = self.files.read(row)
        if self._sizes_N2[row, 0] == UNKNOWN and row not in self._by_pillow:
            header = read_image_header(content)
            if dali_decodes(content, header):
                self._orientation_N[row] = header.orientation
                self._sizes_N2[row] = header.upright_size
            else:
                self._by_pillow.add(row)
        if row not in self._by_pillow:
            return dali_bytes(content, int(self._orientation_N[row]))
        image = decode_image(content)
        self._sizes_N2[row] = image.height, image.width
        return bitmap(image)

    # ---- after a failure ----

    def _find_culprits(self, jobs: Iterable[PipelineInput], error: RuntimeError) -> None:
        """Add the bad images of the first job that has any to the list, because DALI does not name them.

        An image that Pillow reads and DALI does not is decoded by Pillow from now on. Raises RunError if it finds no
        such image.
        """
        jobs = list(jobs)
        for job in jobs:
            found = False
            for row in dict.fromkeys(job.rows.tolist()):
                if row in self.bad.rows or row in self._by_pillow:
                    continue
                try:
                    decode_image(self.files.read(row))
                except BadImage as problem:
                    self.bad.add(row, str(problem))
                    found = True
            if found:
                return
        found = False
        for row in dict.fromkeys(row for job in jobs for row in job.rows.tolist()):
            if row not in self.bad.rows and row not in self._by_pillow and not self._dali_reads(row):
                self._by_pillow.add(row)
                found = True
        if not found:
            words = " ".join(str(error).split())
            raise RunError(f"DALI failed, and on no single image; data.feed=torch goes without it: {words}") from error

    def _dali_reads(self, row: int) -> bool:
        request = DecodeRequest(np.array([row]), (np.empty((1, 0)),), (None,), True)
        pipeline = self._new_pipeline(self._kinds(request))
        pipeline.put(self._prepare(request))
        try:
            pipeline.run()
        except RuntimeError:
            return False
        return True
