"""The decoder for cached images on a GPU: threads copy images, the GPU crops all views.

``factory`` creates it. For each view the CPU computes only a few numbers. The GPU gathers crops. It resamples random
resized crops with the integer arithmetic of Pillow, rows first. So no arithmetic setting of a device changes
a level. Pillow 13 takes columns first where the height shrinks by more than twice the pixels of the width. There, some
levels differ by one.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastcpc.config.sizes import BICUBIC, BILINEAR
from fastcpc.data.augment.batched import send
from fastcpc.data.augment.random_crop import CropGeometry
from fastcpc.data.dataset import RGB, ImageTransform
from fastcpc.data.image_files import RESAMPLING
from fastcpc.data.loaders.image_loader import DecodedChunk, DecodeRequest
from fastcpc.data.loaders.pillow_decoder import PART, Started, work_ahead
from fastcpc.data.prepare.cache import ImageCache

REACH = {BILINEAR: 1, BICUBIC: 2}  # of a filter to each side, in pixels of the crop
WEIGHT_BITS = 22  # binary places of Pillow's weights: 32 - 8 for a level - 2 in reserve
# For a view of random resized crops: the largest height, and the maximum number of source pixels per output pixel and
# axis. For a view of crops: None.
Bounds: TypeAlias = tuple[int, int] | None


@dataclass(frozen=True)
class Layout:
    """The positions of a request's images in its pixels, and of its views in the images.

    Sheet 0 holds an image as it is cached. Sheet 1 holds it enlarged, if crops need a larger image than the cached one.
    An image is in one sheet or in both. Each sheet holds only the rows that a view needs.
    size_2B2: int64, height and width of the whole image. first_2B, last_2B: int64, the first row and the row after the
    last; first >= last means no rows. start_2B: int64, the first pixel. table_V5B, bounds: see ``crop_views``.
    num_pixels: P.
    """

    size_2B2: NDArray[np.int64]
    first_2B: NDArray[np.int64]
    last_2B: NDArray[np.int64]
    start_2B: NDArray[np.int64]
    table_V5B: NDArray[np.int64]
    bounds: tuple[Bounds, ...]
    num_pixels: int


@dataclass
class _CopyJob:
    """A request and its pixels, uint8 (P, 3) in CPU memory, which threads fill."""

    request: DecodeRequest
    layout: Layout
    pixels_P3: Tensor


class GpuCropDecoder:
    """Answers requests whose images are all cached. Its threads live as long as the decoder."""

    num_decoded = 0

    def __init__(self, cache: ImageCache, transform: ImageTransform, num_threads: int, device: torch.device) -> None:
        """num_threads: 1 or more. device: crops the views."""
        self._cache, self._side, self.device = cache, transform.crop, device
        self._geometry, self._interpolation = CropGeometry(transform), transform.interpolation
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="crops")

    def decode(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedChunk]:
        """See ``Decoder.decode``. Views are uint8, on the device. The CPU does not wait for the device."""
        return work_ahead(requests, self._submit)

    def _submit(self, request: DecodeRequest) -> Started:
        layout, num_images = self._layout(request), len(request.rows)
        pixels_P3 = torch.empty(
            (layout.num_pixels, RGB), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )  # torch reuses pinned memory only after the copy from it is done
        job = _CopyJob(request, layout, pixels_P3)
        parts = [slice(first, first + PART) for first in range(0, num_images, PART)]
        futures = [self._pool.submit(self._copy, job, part) for part in parts]
        return Started(futures, lambda: self._collect(job, futures))

    def _layout(self, request: DecodeRequest) -> Layout:
        """Compute all positions of a request."""
        size_B2 = self._cache.size_N2[request.rows]
        whole_B2 = self._geometry.resized(size_B2)
        box_VB4, sheet_VB, bounds = [], [], list[Bounds]()
        for drawn in request.drawn:
            if self._geometry.is_resized_crop(drawn):
                box_B4 = self._geometry.boxes(drawn, size_B2).astype(np.int64)  # corners are whole pixels
                extent_B2 = box_B4[:, 2:] - box_B4[:, :2]
                width = 2 * REACH[self._interpolation]  # of the filter, in pixels of the crop
                num_taps = -(-width * max(int(extent_B2.max()), self._side) // self._side)
                bounds.append((int(extent_B2[:, 0].max()), num_taps))
                sheet_VB.append(np.zeros(len(box_B4), np.int64))
            else:
                corner_B2 = self._geometry.corners(drawn, whole_B2)
                box_B4 = np.concatenate((corner_B2, corner_B2 + self._side), axis=1)
                bounds.append(None)
                sheet_VB.append((whole_B2 != size_B2).any(axis=1).astype(np.int64))
            box_VB4.append(box_B4)
        top_VB, left_VB, bottom_VB, right_VB = np.moveaxis(np.stack(box_VB4), 2, 0)
        mirrored_VB = np.stack([self._geometry.mirrored(drawn) for drawn in request.drawn])
        place = np.stack(sheet_VB), np.arange(len(size_B2))
        size_2B2 = np.stack((size_B2, whole_B2))
        first_2B, last_2B = size_2B2[..., 0].copy(), np.zeros(size_2B2.shape[:2], np.int64)
        np.minimum.at(first_2B, place, top_VB)
        np.maximum.at(last_2B, place, bottom_VB)
        num_2B = np.maximum(last_2B - first_2B, 0) * size_2B2[..., 1]
        start_2B = num_2B.cumsum().reshape(num_2B.shape) - num_2B
        stride_VB, step_VB = size_2B2[..., 1][place], np.where(mirrored_VB, -1, 1)
        start_VB = start_2B[place] + (top_VB - first_2B[place]) * stride_VB
        start_VB += np.where(mirrored_VB, right_VB - 1, left_VB)
        table_V5B = np.stack((start_VB, stride_VB, step_VB, bottom_VB - top_VB, right_VB - left_VB), axis=1)
        return Layout(size_2B2, first_2B, last_2B, start_2B, table_V5B, tuple(bounds), int(num_2B.sum()))

    def _copy(self, job: _CopyJob, part: slice) -> None:
        """Copy some images to the job's pixels."""
        layout, values = job.layout, job.pixels_P3.numpy().reshape(-1)
        rows = job.request.rows[part].tolist()
        for sheet in range(2):
            columns = (layout.size_2B2, layout.first_2B, layout.last_2B, layout.start_2B)
            lists = (column[sheet, part].tolist() for column in columns)
            for row, (height, width), first, last, start in zip(rows, *lists, strict=True):
                if first < last:
                    image = self._cache.image(row)
                    if sheet:
                        whole = Image.fromarray(image).resize((width, height), RESAMPLING[self._interpolation])
                        image = np.asarray(whole)
                    end = start + (last - first) * width
                    values[RGB * start : RGB * end] = image[first:last].reshape(-1)

    def _collect(self, job: _CopyJob, futures: Sequence[Future[None]]) -> DecodedChunk:
        for future in futures:
            future.result()
        table_V5B = send(torch.from_numpy(job.layout.table_V5B), self.device)
        pixels_P3 = job.pixels_P3.to(self.device, non_blocking=True)
        return DecodedChunk(
            job.request,
            job.request.rows,
            crop_views(pixels_P3, table_V5B, job.layout.bounds, self._side, self._interpolation),
        )


def crop_views(
    pixels_P3: Tensor, table_V5B: Tensor, bounds: Sequence[Bounds], side: int, interpolation: str = BILINEAR
) -> tuple[Tensor, ...]:
    """Crop views uint8 (B, S, S, 3) from images, on their device. No value is read back to the CPU.

    pixels_P3: uint8, images row by row. table_V5B: int64, five numbers per view and image. These are the first
    pixel, the step between rows, the step between columns (1 or -1), and the crop's height and width. The first pixel
    is at the top left, or at the top right for a mirrored view. bounds: one per view. side: S.
    """
    return tuple(
        _crops(pixels_P3, table_5B, side) if bound is None else _boxes(pixels_P3, table_5B, side, *bound, interpolation)
        for table_5B, bound in zip(table_V5B.unbind(), bounds, strict=True)
    )


def _crops(pixels_P3: Tensor, table_5B: Tensor, side: int) -> Tensor:
    start_B11, stride_B11, step_B11 = table_5B[:3, :, None, None]
    along_S = torch.arange(side, device=pixels_P3.device)
    index_BSS = (start_B11 + along_S[:, None] * stride_B11) + along_S * step_B11
    return pixels_P3.index_select(0, index_BSS.view(-1)).view(-1, side, side, RGB)


def _boxes(pixels_P3: Tensor, table_5B: Tensor, side: int, num_rows: int, num_taps: int, interpolation: str) -> Tensor:
    """Random resized crops as Pillow makes them, rows first, each pass rounded to a level. num_rows: H."""
    num_images, at = table_5B.shape[1], pixels_P3.device
    start_B1, stride_B1, step_B1, height_B1, _ = table_5B[:, :, None]
    place_2BST, weight_2BST = (
        both.unflatten(0, (2, -1)) for both in _taps(table_5B[3:].flatten(), side, num_taps, interpolation)
    )
    row_BH = torch.arange(num_rows, device=at).minimum(height_B1 - 1)  # shorter crops repeat their last row, unused
    along_BST = place_2BST[1] * step_B1[..., None]
    index_BHST = (start_B1 + row_BH * stride_B1)[..., None, None] + along_BST[:, None]
    picked = pixels_P3.index_select(0, index_BHST.view(-1)).view(*index_BHST.shape, RGB)
    wide = _level((picked * weight_2BST[1][:, None, ..., None]).sum(3, dtype=torch.int32))  # (B, H, S, 3)
    index_BST = place_2BST[0] + (torch.arange(num_images, device=at) * num_rows)[:, None, None]
    lines = wide.view(-1, side * RGB).index_select(0, index_BST.view(-1)).view(*index_BST.shape, side * RGB)
    square = _level((lines * weight_2BST[0][..., None]).sum(2, dtype=torch.int32))
    return square.view(-1, side, side, RGB)


def _taps(length_A: Tensor, side: int, num_taps: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """Source pixels and their weights for resampling each of A lengths to S pixels.

    length_A: int64, 1 or more. Returns positions int64 and weights int32, both (A, S, T). The weight of a pixel is a
    function of its distance from the centre, in units of max(length / S, 1) source pixels: ``_filter``.
    """
    length_A11 = length_A[:, None, None]
    along_S = torch.arange(side, device=length_A.device, dtype=torch.float64)
    scale_A11 = length_A11.to(torch.float64) / side
    unit_A11 = scale_A11.clamp(min=1)
    reach_A11 = unit_A11 * REACH[interpolation]
    centre_AS1 = (along_S[:, None] + 0.5) * scale_A11
    first_AS1 = (centre_AS1 - reach_A11 + 0.5).floor().to(torch.int64)
    place_AST = first_AS1 + torch.arange(num_taps, device=length_A.device)
    weight_AST = _filter(((place_AST - centre_AS1 + 0.5) * (1 / unit_A11)).abs(), interpolation)
    weight_AST = torch.where((place_AST >= 0) & (place_AST < length_A11), weight_AST, 0)
    weight_AST /= weight_AST.sum(2, keepdim=True)
    half = torch.where(weight_AST < 0, -0.5, 0.5)  # away from 0, as Pillow rounds
    return place_AST.clamp(min=0).minimum(length_A11 - 1), (weight_AST * 2**WEIGHT_BITS + half).to(torch.int32)


def _filter(distance: Tensor, interpolation: str) -> Tensor:
    """Pillow's filters: a triangle (bilinear), or the cubic convolution of Keys (1981) with a = -1/2 (bicubic)."""
    if interpolation == BILINEAR:
        return (1 - distance).clamp(min=0)
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance - 4
    return torch.where(distance < 1, near, torch.where(distance < 2, -0.5 * far, 0.0))


def _level(sum_of_weighted: Tensor) -> Tensor:
    """Round to uint8. Negative weights of bicubic give values below 0 and above 255."""
    level = sum_of_weighted.add_(2 ** (WEIGHT_BITS - 1)).bitwise_right_shift_(WEIGHT_BITS)
    return level.clamp_(0, 255).to(torch.uint8)
