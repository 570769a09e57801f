"""NVIDIA DALI, and the only door to it: a pipeline that decodes photos and cuts their views on its own threads, or on
a GPU.

A pipeline is built once a run for each combination of views. It is handed the bytes of files and numbers; which photos
come next is decided elsewhere, so that a new partition is only another list.
"""

import importlib
import importlib.util
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fastcpc.data.loaders.buffers import Normaliser
from fastcpc.data.loaders.image_loader import CHUNK, DecodeRequest

DEPTH = 2  # requests that a pipeline works on at a time
PLACE = 4  # numbers a view: of a crop the place (x, y) in [0, 1] of the room; of a box top, left, bottom, right


def dali_problem() -> str:
    """Why DALI cannot be used here, in a few words; empty where it can."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        return "nvidia.dali is not installed"
    return ""


@dataclass(frozen=True)
class ViewKind:
    """What a pipeline does for a view. is_box: resample a box, else crop the resized photo. in_levels: uint8, else
    normalised float32."""

    is_resized_crop: bool
    in_levels: bool


@dataclass(frozen=True)
class PipelineSettings:
    """What all pipelines of a decoder share. device_id: of a GPU, None for the CPU. hw_load: share of JPEGs that a
    GPU's hardware decoder takes."""

    normaliser: Normaliser
    num_threads: int
    device_id: int | None
    hw_load: float


@dataclass
class PipelineInput:
    """A request made ready for a pipeline of V views, B photos.

    rows: after replacement. files: the bytes of each file. whole_B2: float32, height and width to resize the photo to
    where resize_B (bool) says that it has not this size already. places_BV4: float32. mirror_BV: int32, 0 or 1.
    """

    request: DecodeRequest
    rows: np.ndarray
    files: list[np.ndarray]
    resize_B: np.ndarray
    whole_B2: np.ndarray
    places_BV4: np.ndarray
    mirror_BV: np.ndarray

    def inputs(self, has_crops: bool) -> tuple[Any, ...]:
        """In the order in which the pipeline takes them; sizes only where it has crops of resized photos."""
        common = self.files, self.rows[:, None], self.places_BV4, self.mirror_BV
        return (*common, self.resize_B, self.whole_B2) if has_crops else common


class DaliPipeline:
    """A pipeline and the jobs it has taken. ``waiting`` holds those that it has not delivered yet."""

    def __init__(self, kinds: Sequence[ViewKind], settings: PipelineSettings) -> None:
        self.waiting: deque[PipelineInput] = deque()
        self._ready: deque[PipelineInput] = deque()
        self.kinds = tuple(kinds)
        self._started = False
        self._pipeline = _build(importlib.import_module("nvidia.dali"), self._next, self.kinds, settings)

    def _next(self) -> tuple[Any, ...]:
        """DALI calls this for its next batch."""
        if not self._ready:
            raise StopIteration
        job = self._ready.popleft()
        self.waiting.append(job)
        return job.inputs(_has_crops(self.kinds))

    def put(self, job: PipelineInput) -> None:
        """Queue a job."""
        self._ready.append(job)

    @property
    def wants_more(self) -> bool:
        """Whether the pipeline could run dry before the next job is put."""
        return len(self._ready) < DEPTH

    def taken_back(self) -> list[PipelineInput]:
        """All jobs that were put and not delivered, for a pipeline that broke."""
        return [*self.waiting, *self._ready]

    def run(self, stream: Any = None) -> tuple[PipelineInput, list[Any], np.ndarray] | None:
        """The oldest job with its views and the indices that came out with them; None when all are done, after which
        new jobs may be put. RuntimeError where a photo of a waiting job cannot be decoded: then this lane is dead.

        stream: the CUDA stream on which the views are read. DALI uses their memory again once they are let go, in this
        stream's order; without one that would be at once, before the GPU may have come to read them."""
        if not self._started:  # it asks for jobs at once: they must be there before, or it would start with old ones
            self._pipeline.reset()
            self._started = True
        try:
            *views, index = self._pipeline.run(stream)
        except StopIteration:
            self._started = False
            return None
        return self.waiting.popleft(), views, np.asarray(index.as_array()).reshape(-1)

    def drain(self) -> None:
        """Throw away what is under way. RuntimeError as in ``run``."""
        self._ready.clear()
        while self._started and self.run() is not None:
            pass

    def graph(self) -> bytes:
        """The pipeline as DALI writes it down."""
        return bytes(self._pipeline.serialize())


def _has_crops(kinds: Sequence[ViewKind]) -> bool:
    return not all(kind.is_resized_crop for kind in kinds)


def _build(dali: ModuleType, source: Any, kinds: tuple[ViewKind, ...], settings: PipelineSettings) -> Any:
    """The pipeline: files, rows and numbers in; views (B, S, S, 3) and rows out."""
    fn, types = dali.fn, dali.types
    on_gpu, side = settings.device_id is not None, settings.normaliser.side
    levels_mean = [255 * value for value in settings.normaliser.mean]
    levels_std = [255 * value for value in settings.normaliser.std]
    sampling = {"interp_type": types.INTERP_LINEAR, "antialias": True}

    def view(kind: ViewKind, photo: Any, whole: Any, place: Any, mirror: Any) -> Any:
        source, where = whole, {"crop_pos_x": place[0], "crop_pos_y": place[1]}
        if kind.is_resized_crop:
            source, where = photo, {}
            source = fn.resize(photo, size=[side, side], roi_start=place[0:2], roi_end=place[2:4], **sampling)
        return fn.crop_mirror_normalize(
            source,
            crop=(side, side),
            mirror=mirror,
            mean=[0.0] * 3 if kind.in_levels else levels_mean,
            std=[1.0] * 3 if kind.in_levels else levels_std,
            dtype=types.UINT8 if kind.in_levels else types.FLOAT,
            output_layout="HWC",
            **where,
        )

    def graph() -> tuple[Any, ...]:
        num_inputs = 6 if has_crops else 4
        encoded, row, places, mirrors, *sizes = fn.external_source(
            source=source,
            num_outputs=num_inputs,
            batch=True,
            ndim=[1, 1, 2, 1, 0, 1][:num_inputs],
            dtype=[types.UINT8, types.INT64, types.FLOAT, types.INT32, types.BOOL, types.FLOAT][:num_inputs],
        )
        options = {"device": "mixed", "hw_decoder_load": settings.hw_load} if on_gpu else {"device": "cpu"}
        photo = fn.decoders.image(encoded, output_type=types.RGB, **options)
        whole = photo
        if has_crops:  # noqa: SIM102 (DALI takes the inner condition for each photo by itself)
            if sizes[0]:  # the photos of many sets have that size already
                whole = fn.resize(photo, size=sizes[1], **sampling)
        views = [view(kinds[i], photo, whole, places[i], mirrors[i]) for i in range(len(kinds))]
        return (*views, row)

    has_crops = _has_crops(kinds)
    pipeline = dali.pipeline_def(enable_conditionals=True)(graph)(
        batch_size=CHUNK,
        num_threads=settings.num_threads,
        device_id=settings.device_id,
        prefetch_queue_depth=DEPTH,
    )
    pipeline.build()
    return pipeline
