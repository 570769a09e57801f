"""The DALI pipeline: decodes images and crops their views in its threads or on a GPU.

``dali_decoder`` calls it. No other module uses NVIDIA DALI. A run builds one pipeline per combination of views. A
pipeline gets file contents and numbers. The caller selects the images, so a new partition needs no new pipeline.
"""

import importlib
import importlib.util
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fastcpc.config.sizes import BICUBIC, BILINEAR
from fastcpc.data.augment.normalize import Normaliser
from fastcpc.data.loaders.image_loader import CHUNK, DecodeRequest

DEPTH = 2  # requests that a pipeline processes at a time
PLACE = 4  # numbers per view: crop: (x, y) in [0, 1] of the free space; resized crop: top, left, bottom, right


def dali_problem() -> str:
    """The reason why DALI cannot be used, in a few words; empty if it can."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        return "nvidia.dali is not installed"
    return ""


@dataclass(frozen=True)
class ViewKind:
    """What a pipeline does for a view.

    is_resized_crop: make a random resized crop, else crop the resized image. in_levels: uint8, else normalised float32.
    """

    is_resized_crop: bool
    in_levels: bool


@dataclass(frozen=True)
class PipelineSettings:
    """What all pipelines of a decoder share.

    device_id: of a GPU, None for the CPU. hw_load: share of JPEGs that the GPU's hardware decoder decodes.
    interpolation: bilinear or bicubic.
    """

    normaliser: Normaliser
    num_threads: int
    device_id: int | None
    hw_load: float
    interpolation: str = BILINEAR


@dataclass
class PipelineInput:
    """The inputs of a pipeline for one request of V views of B images.

    rows: after replacement. files: the bytes of each file. whole_B2: float32, height and width of the resized image.
    resize_B: bool, whether the image has another size. places_BV4: float32. mirror_BV: int32, 0 or 1.
    """

    request: DecodeRequest
    rows: np.ndarray
    files: list[np.ndarray]
    resize_B: np.ndarray
    whole_B2: np.ndarray
    places_BV4: np.ndarray
    mirror_BV: np.ndarray

    def inputs(self, has_crops: bool) -> tuple[Any, ...]:
        """The inputs in the order of the pipeline. It takes sizes only if it has crops of resized images."""
        common = self.files, self.rows[:, None], self.places_BV4, self.mirror_BV
        return (*common, self.resize_B, self.whole_B2) if has_crops else common


class DaliPipeline:
    """A pipeline and its jobs. ``waiting`` holds the jobs that it took and has not delivered yet."""

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
        """Whether the queue is shorter than DEPTH, so that the pipeline could run out of jobs."""
        return len(self._ready) < DEPTH

    def taken_back(self) -> list[PipelineInput]:
        """All queued jobs that a failed pipeline has not delivered."""
        return [*self.waiting, *self._ready]

    def run(self, stream: Any = None) -> tuple[PipelineInput, list[Any], np.ndarray] | None:
        """Return the oldest job, its views, and the rows that DALI delivered with them.

        None means that all jobs are done; new jobs may then be put. Raises RuntimeError if an image of a waiting job
        cannot be decoded. The pipeline is then unusable.

        stream: the CUDA stream that reads the views. DALI reuses their memory after release, in the order of this
        stream. Without a stream, DALI reuses it at once, maybe before the GPU has read it.
        """
        if not self._started:  # it takes jobs at once, so they must be queued before; else it starts with old ones
            self._pipeline.reset()
            self._started = True
        try:
            *views, index = self._pipeline.run(stream)
        except StopIteration:
            self._started = False
            return None
        return self.waiting.popleft(), views, np.asarray(index.as_array()).reshape(-1)

    def drain(self) -> None:
        """Discard all jobs. Raises RuntimeError as ``run`` does."""
        self._ready.clear()
        while self._started and self.run() is not None:
            pass

    def graph(self) -> bytes:
        """The pipeline as DALI serialises it."""
        return bytes(self._pipeline.serialize())


def _has_crops(kinds: Sequence[ViewKind]) -> bool:
    return not all(kind.is_resized_crop for kind in kinds)


def _build(dali: ModuleType, source: Any, kinds: tuple[ViewKind, ...], settings: PipelineSettings) -> Any:
    """Build the pipeline: files, rows and numbers in; views (B, S, S, 3) and rows out."""
    fn, types = dali.fn, dali.types
    on_gpu, side = settings.device_id is not None, settings.normaliser.side
    levels_mean = [255 * value for value in settings.normaliser.mean]
    levels_std = [255 * value for value in settings.normaliser.std]
    kernel = types.INTERP_CUBIC if settings.interpolation == BICUBIC else types.INTERP_LINEAR
    sampling = {"interp_type": kernel, "antialias": True}

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
        if has_crops:  # noqa: SIM102 (DALI evaluates the inner condition per image)
            if sizes[0]:  # images of many data sets already have that size
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
