"""The decoder by NVIDIA DALI, and the only door to it: JPEGs are decoded and resampled on its own threads, or on a GPU.

A pipeline is built once a run for each number of views. It is handed file paths and boxes; which photos come next is
decided here, so that a new partition is only another list. On a GPU the photos are decoded by ``mixed`` decoding and
stay there.
"""

import importlib
import importlib.util
import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastcpc.data.geometry import PhotoGeometry
from fastcpc.data.photo_feed import CHUNK, Cut, Request, stand_ins
from fastcpc.data.photo_files import BadImage, BadImages, photo_head, read_photo
from fastcpc.data.split import PhotoTransform
from fastcpc.errors import RunError

DEPTH = 2  # requests that a pipeline works on at a time
FORMATS = frozenset({"JPEG", "PNG", "WEBP", "BMP"})  # that DALI decodes to the values that Pillow gives, or within one
UNKNOWN = 0


def dali_fault() -> str:
    """Why DALI cannot be used here, in a few words; empty where it can."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        return "nvidia.dali is not installed"
    return ""


@dataclass
class _Job:
    """A request made ready for a pipeline: a path and the boxes (V, 4) of each photo; rows after replacement."""

    request: Request
    rows: np.ndarray
    paths: list[np.ndarray]
    boxes: list[np.ndarray]


class _Lane:
    """A pipeline and the jobs it has taken. ``waiting`` holds those that it has not delivered yet."""

    def __init__(self, num_views: int, side: int, num_threads: int, device: torch.device) -> None:
        self.waiting: deque[_Job] = deque()
        self._ready: deque[_Job] = deque()
        self.num_views = num_views
        self._started = False
        dali = importlib.import_module("nvidia.dali")
        self._pipeline = _build(dali, self._next, num_views, side, num_threads, device)

    def _next(self) -> tuple[list[np.ndarray], ...]:
        """DALI calls this for its next batch."""
        if not self._ready:
            raise StopIteration
        job = self._ready.popleft()
        self.waiting.append(job)
        return job.paths, job.boxes, [np.array([row]) for row in job.rows.tolist()]

    def put(self, job: _Job) -> None:
        """Queue a job."""
        self._ready.append(job)

    @property
    def wants_more(self) -> bool:
        """Whether the pipeline could run dry before the next job is put."""
        return len(self._ready) < DEPTH

    def taken_back(self) -> list[_Job]:
        """All jobs that were put and not delivered, for a pipeline that broke."""
        return [*self.waiting, *self._ready]

    def run(self) -> tuple[_Job, list[Any], np.ndarray] | None:
        """The oldest job with its views and the indices that came out with them; None when all are done, after which
        new jobs may be put. RuntimeError where a photo of a waiting job cannot be decoded: then this lane is dead."""
        if not self._started:  # it asks for jobs at once: they must be there before, or it would start with old ones
            self._pipeline.reset()
            self._started = True
        try:
            *views, index = self._pipeline.run()
        except StopIteration:
            self._started = False
            return None
        return self.waiting.popleft(), views, np.asarray(index.as_array()).reshape(-1)

    def drain(self) -> None:
        """Throw away what is under way. RuntimeError as in ``run``."""
        self._ready.clear()
        while self._started and self.run() is not None:
            pass


def _build(dali: ModuleType, source: Any, num_views: int, side: int, num_threads: int, device: torch.device) -> Any:
    """The pipeline: paths, boxes and rows in; views uint8 (B, S, S, 3) and rows out."""
    fn, types = dali.fn, dali.types
    on_gpu = device.type == "cuda"

    def graph() -> tuple[Any, ...]:
        path, box, row = fn.external_source(
            source=source, num_outputs=3, batch=True, ndim=[1, 2, 1], dtype=[types.UINT8, types.FLOAT, types.INT64]
        )
        photo = fn.decoders.image(fn.io.file.read(path), device="mixed" if on_gpu else "cpu", output_type=types.RGB)
        views = [
            fn.resize(
                photo,
                size=[side, side],
                roi_start=box[view, 0:2],
                roi_end=box[view, 2:4],
                interp_type=types.INTERP_LINEAR,
                antialias=True,
            )
            for view in range(num_views)
        ]
        return (*views, row)

    device_id = (device.index or 0) if on_gpu else None
    pipeline = dali.Pipeline(batch_size=CHUNK, num_threads=num_threads, device_id=device_id, prefetch_queue_depth=DEPTH)
    with pipeline:
        pipeline.set_outputs(*graph())
    pipeline.build()
    return pipeline


class DaliDecoder:
    """Decodes by DALI. The size of a photo, which its boxes depend on, is read from the file once and remembered."""

    def __init__(
        self,
        paths: tuple[str, ...],
        transform: PhotoTransform,
        fill: tuple[int, int, int],
        bad: BadImages,
        num_threads: int,
        device: torch.device,
    ) -> None:
        """fill: colour of what stands for a photo that cannot be read. num_threads: 1 or more."""
        self.num_decoded = 0
        self.num_built = 0
        self._paths, self._bad, self._fill = paths, bad, fill
        self._num_threads, self._device, self._side = num_threads, device, transform.crop
        self._geometry = PhotoGeometry(transform)
        self._sizes_N2 = np.full((len(paths), 2), UNKNOWN, np.int64)
        self._copies: dict[int, str] = {}  # photos that DALI does not read, written anew for it
        self._idle: dict[int, list[_Lane]] = {}
        self._folder: Path | None = None
        self._blank = ""

    def cut(self, requests: Iterable[Request]) -> Iterator[Cut]:
        """See ``Decoder.cut``."""
        todo = iter(requests)
        lane: _Lane | None = None
        try:
            first = next(todo, None)
            if first is None:
                return
            num_views = len(first.drawn)
            lane = self._lane(num_views)
            lane.put(self._prepare(first))
            while True:
                while lane.wants_more and (request := next(todo, None)) is not None:
                    lane.put(self._prepare(request))
                try:
                    done = lane.run()
                except RuntimeError as error:
                    broken, lane = lane, None
                    self._find_culprits(broken.waiting, error)
                    lane = self._new_lane(num_views)
                    for job in broken.taken_back():
                        lane.put(self._prepare(job.request))
                    continue
                if done is None:
                    return
                job, views, index = done
                if not np.array_equal(index, job.rows):
                    raise RuntimeError(f"DALI delivered images {index.tolist()} where {job.rows.tolist()} were due")
                self.num_decoded += len(index)
                yield Cut(job.rows, torch.stack([self._tensor(view) for view in views]))
        finally:
            if lane is not None:
                self._give_back(lane)

    def _lane(self, num_views: int) -> _Lane:
        idle = self._idle.setdefault(num_views, [])
        return idle.pop() if idle else self._new_lane(num_views)

    def _new_lane(self, num_views: int) -> _Lane:
        self.num_built += 1
        return _Lane(num_views, self._side, self._num_threads, self._device)

    def _give_back(self, lane: _Lane) -> None:
        """Empty a lane for the next stream; one that breaks on what it threw away is not used again."""
        try:
            lane.drain()
        except RuntimeError:
            return
        self._idle[lane.num_views].append(lane)

    def _tensor(self, view: Any) -> Tensor:
        """uint8 (B, S, S, 3). On a CPU it shares memory with the pipeline; stack copies it."""
        if self._device.type == "cuda":
            return torch.utils.dlpack.from_dlpack(view.as_tensor())
        return torch.from_numpy(view.as_array())

    # ---- before decoding ----

    def _prepare(self, request: Request) -> _Job:
        """Find every photo's size, and put others in the place of those that are known to be bad."""
        rows, paths, blank = request.rows.copy(), [], []
        for position, row in enumerate(request.rows.tolist()):
            if self._readable(row):
                paths.append(self._copies.get(row, self._paths[row]))
                continue
            if request.in_place:
                blank.append(position)
                paths.append(self._blank_file())
                continue
            for row in stand_ins(request, position, len(self._paths)):
                if self._readable(row):
                    break
            else:
                raise RunError("no image of the data set can be read")
            rows[position] = row
            paths.append(self._copies.get(row, self._paths[row]))
        sizes_B2 = self._sizes_N2[rows]
        sizes_B2[blank] = 1
        boxes_BV4 = np.stack([self._geometry.boxes(drawn, sizes_B2) for drawn in request.drawn], axis=1)
        encoded = [np.frombuffer(os.fsencode(path), np.uint8) for path in paths]
        return _Job(request, rows, encoded, list(boxes_BV4.astype(np.float32)))

    def _readable(self, row: int) -> bool:
        """Whether a photo's head can be read and nothing else is known against it."""
        if row in self._bad.rows:
            return False
        if self._sizes_N2[row, 0] == UNKNOWN:
            try:
                head = photo_head(self._paths[row])
                if head.format not in FORMATS:
                    self._copy(row)
            except BadImage as fault:
                self._bad.add(row, str(fault))
                return False
            self._sizes_N2[row] = head.height, head.width
        return True

    def _copy(self, row: int) -> None:
        """Write a photo anew in a format that DALI reads, without loss. Raises BadImage."""
        photo = read_photo(self._paths[row])
        self._copies[row] = str(self._scratch() / f"{row}.png")
        photo.save(self._copies[row], compress_level=1)

    def _blank_file(self) -> str:
        """A photo of the fill colour."""
        if not self._blank:
            self._blank = str(self._scratch() / "blank.png")
            Image.new("RGB", (1, 1), self._fill).save(self._blank)
        return self._blank

    def _scratch(self) -> Path:
        """A folder that goes when this object does."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fastcpc-photos-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    # ---- after a failure ----

    def _find_culprits(self, jobs: Iterable[_Job], error: RuntimeError) -> None:
        """Name the bad photos of the first job that holds any: DALI does not. RunError where none is to be found.

        A photo that Pillow reads and DALI does not is written anew for it.
        """
        jobs = list(jobs)
        for job in jobs:
            found = False
            for row in dict.fromkeys(job.rows.tolist()):
                if row in self._bad.rows or row in self._copies:
                    continue
                try:
                    read_photo(self._paths[row])
                except BadImage as fault:
                    self._bad.add(row, str(fault))
                    found = True
            if found:
                return
        found = False
        for row in dict.fromkeys(row for job in jobs for row in job.rows.tolist()):
            if row not in self._bad.rows and row not in self._copies and not self._dali_reads(row):
                self._copy(row)
                found = True
        if not found:
            words = " ".join(str(error).split())
            raise RunError(f"DALI failed, and on no single image; data.feed=torch goes without it: {words}") from error

    def _dali_reads(self, row: int) -> bool:
        lane = self._new_lane(1)
        request = Request(np.array([row]), (np.empty((1, 0)),), True)
        lane.put(self._prepare(request))
        try:
            lane.run()
        except RuntimeError:
            return False
        return True
