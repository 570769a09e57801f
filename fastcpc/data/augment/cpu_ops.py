"""Strong operations for one image at a time on a CPU; ``batched_ops`` works on groups.

An image of 224 pixels has 150 kB. The buffers (uint8, int16, float32) are reused, so the image stays in the cache of a
core. NumPy needs few passes, which take 0.1 to 0.6 of the time of torch (measured on one core).
The values equal those of ``batched_ops``. Where float32 rounding decides, a value may be the neighbouring pixel or
level.
"""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fastcpc.data.augment.augdmix_ops import shear_x, shear_y
from fastcpc.data.augment.batched import GROUPS, MOVED, UNTOUCHED
from fastcpc.data.augment.batched_ops import LEVELS, LUMA, centred_grid
from fastcpc.data.augment.normalize import Normaliser, PixelArray
from fastcpc.data.dataset import RGB

Row = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float32]
# Result of ``StrongAugmenter.draw``: groups int64 (steps, B) and strengths float32 (steps, B, 6).
StrongDraw: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
LARGEST = 4094  # pixels per side: float32 holds the index of each pixel of a plane with its frame exactly
LUMA_F32 = np.array(LUMA, np.float32)


class CpuOps:
    """Operations on one image in place, uint8 (3, S, S), C-contiguous. Each takes a row of ``batched_ops.strengths``.

    One object serves one thread at a time, because it reuses its buffers.
    """

    def __init__(self, side: int, fill: int = 0) -> None:
        """side: S, pixels. fill: level of pixels from outside the image. ValueError for a side above LARGEST."""
        if side > LARGEST:
            raise ValueError(f"side: expected at most {LARGEST}, got {side}")
        self._side = side
        # All operations share few buffers: at 224 pixels, twice as many would not fit the cache of a core.
        self._floats = np.zeros((3, side, side), np.float32)
        self._words = np.zeros((3, side * side), np.int16)
        self._flags = np.empty((side, side), np.bool_)
        self._framed = np.full((side + 2, side + 2), fill, np.uint8)  # a plane with a frame
        self._bytes = bytearray(side * side)  # a plane, in a form that bytes.translate accepts
        self._plane = np.frombuffer(self._bytes, np.uint8).reshape(side, side)
        self._index = np.empty((side, side), np.intp)
        self._centre_x, self._centre_y = centred_grid(side, side, torch.device("cpu")).squeeze(-1).numpy()
        self._by_group = [None, self.affine, *(getattr(self, name.lower()) for name in GROUPS[MOVED + 1 :])]

    def run(self, group: int, image: PixelArray, row: Row) -> None:
        """Run the operation of a group, see ``batched.GROUPS``. UNTOUCHED has no operation."""
        operation = self._by_group[group]
        assert operation is not None
        operation(image, row)

    def affine(self, image: PixelArray, row: Row) -> None:
        """Move pixels. row: the inverse map, in half image sizes."""
        y, x, part = self._floats
        wide = np.float32(self._side + 2)
        self._from(row[3:], y, part)
        self._from(row[:3], x, part)
        y *= wide
        y += x
        y += wide + np.float32(1)
        np.copyto(self._index, y, casting="unsafe")
        for plane in image:
            self._framed[1:-1, 1:-1] = plane
            np.take(self._framed.reshape(-1), self._index, out=plane, mode="wrap")  # valid indices; "raise" would copy

    def _from(self, row: Row, out: Floats, part: Floats) -> None:
        """Write one coordinate of the source of each output pixel to out."""
        half = np.float32(0.5 * self._side)
        np.multiply(self._centre_x, row[0] * half, out=out)
        out += np.multiply(self._centre_y, row[1] * half, out=part)
        out += row[2] * half + np.float32(0.5 * (self._side - 1))
        np.clip(np.rint(out, out=out), -1, self._side, out=out)  # the frame is at -1 and S

    def _put(self, values: Floats, plane: PixelArray) -> None:
        """Truncate values to integers, then clip them to 0..255. Clipping is faster on int16 than on float32."""
        words = self._words[0, : values.size].reshape(values.shape)
        np.copyto(words, values, casting="unsafe")
        np.copyto(plane, np.clip(words, 0, 255, out=words), casting="unsafe")

    def _grey(self, image: PixelArray) -> Floats:
        """Brightness of each pixel as whole numbers, (S, S)."""
        grey: Floats = self._floats[0]
        part = self._floats[1]
        np.copyto(grey, image[0])
        grey *= LUMA_F32[0]
        for plane, weight in zip(image[1:], LUMA_F32[1:], strict=True):
            np.copyto(part, plane)
            part *= weight
            grey += part
        np.floor(grey, out=grey)
        return grey

    def _blend(self, image: PixelArray, factor: np.float32, other: Floats | np.float32 | None = None) -> None:
        """Write image * factor + other to the image."""
        values = self._floats[1]
        for plane in image:
            np.copyto(values, plane)
            values *= factor
            if other is not None:
                values += other
            self._put(values, plane)

    def brightness(self, image: PixelArray, row: Row) -> None:
        """Blend with black. row: factor."""
        self._blend(image, row[0])

    def color(self, image: PixelArray, row: Row) -> None:
        """Blend with the grey image. row: factor, 1 - factor."""
        grey = self._grey(image)
        grey *= row[1]
        self._blend(image, row[0], grey)

    def contrast(self, image: PixelArray, row: Row) -> None:
        """Blend with the mean grey. row: factor, 1 - factor."""
        self._blend(image, row[0], self._grey(image).mean() * row[1])

    def contrast256(self, image: PixelArray, row: Row) -> None:
        """Blend with the mean grey, rounded to a level. row: factor, 1 - factor."""
        self._blend(image, row[0], np.floor(self._grey(image).mean() + np.float32(0.5)) * row[1])

    def shearx(self, image: PixelArray, row: Row) -> None:
        """Shear along x, see ``augdmix_ops.shear_x``. row: pixels per pixel."""
        image[:] = shear_x(torch.from_numpy(image)[None], torch.from_numpy(row)[None])[0].numpy()

    def sheary(self, image: PixelArray, row: Row) -> None:
        """Shear along y. row: pixels per pixel."""
        image[:] = shear_y(torch.from_numpy(image)[None], torch.from_numpy(row)[None])[0].numpy()

    def sharpness(self, image: PixelArray, row: Row) -> None:
        """Blend with the 3x3 mean (weight 5 at the centre, else 1), except at the border. row: factor, 1 - factor."""
        side = self._side
        if side <= 2:
            return
        # A plane is treated as one line of pixels. Only border values are wrong, and they are not written back.
        words, columns, sums = self._words
        inner = slice(side + 1, words.size - side - 1)
        values, change = (array.reshape(-1)[inner] for array in self._floats[:2])
        for plane in image:
            words[:] = plane.reshape(-1)
            np.add(words[:-2], words[1:-1], out=columns[1:-1])
            columns[1:-1] += words[2:]
            smooth = np.add(columns[1 : -2 * side - 1], columns[inner], out=sums[inner])
            smooth += columns[2 * side + 1 : -1]
            smooth += np.multiply(words[inner], np.int16(4), out=columns[inner])
            smooth += np.int16(6)  # 13 * 255 + 6 at most; a thirteenth is never a tie, so this rounds it
            smooth //= np.int16(13)
            smooth -= words[inner]
            np.copyto(change, smooth)
            change *= row[1]
            np.copyto(values, words[inner])
            values += change
            self._put(self._floats[0, 1:-1, 1:-1], plane[1:-1, 1:-1])

    def posterize(self, image: PixelArray, row: Row) -> None:
        """Clear the low-order binary digits of each value. row: mask."""
        image &= np.uint8(row[0])

    def solarize(self, image: PixelArray, row: Row) -> None:
        """Invert the levels at or above a threshold. row: threshold."""
        for plane in image:
            flips = np.greater_equal(plane, np.uint8(row[0]), out=self._flags).view(np.uint8)
            plane ^= np.negative(flips, out=flips)  # 255 where inverted

    def autocontrast(self, image: PixelArray, row: Row) -> None:
        """Stretch each channel to 0..255. A channel with one level does not change."""
        values = self._floats[0]
        for plane in image:
            low, high = np.float32(plane.min()), np.float32(plane.max())
            if low < high:
                np.copyto(values, plane)
                values -= low
                values /= (high - low) * np.float32(1.0 / 255.0)
                self._put(values, plane)

    def equalize(self, image: PixelArray, row: Row) -> None:
        """Equalize the histogram of each channel with Pillow's table."""
        for plane in image:
            count_L = np.array(Image.frombuffer("L", plane.shape, plane, "raw", "L", 0, 1).histogram())
            step = (plane.size - int(count_L[plane.max()])) // 255
            if step:
                table_L = np.minimum((count_L.cumsum() - count_L + step // 2) // step, LEVELS - 1).astype(np.uint8)
                self._plane[:] = plane
                plane.reshape(-1)[:] = np.frombuffer(self._bytes.translate(table_L.tobytes()), np.uint8)

    def invert(self, image: PixelArray, row: Row) -> None:
        """Swap black and white."""
        np.invert(image, out=image)


class CpuStrongAugmenter:
    """Makes strong views of crops: operations, then normalisation. One object serves one thread at a time."""

    def __init__(self, normaliser: Normaliser, fill: int = 0) -> None:
        """fill: level of pixels from outside the image, 0..255."""
        self._normaliser = normaliser
        self._ops = CpuOps(normaliser.side, fill)
        self._planes = np.empty((RGB, normaliser.side, normaliser.side), np.uint8)
        self._crop = np.empty((normaliser.side, normaliser.side, RGB), np.uint8)

    def put(self, crop: PixelArray, strong: StrongDraw, position: int, out: PixelArray) -> None:
        """Write the strong view of a crop to out. The crop does not change.

        crop: uint8 (S, S, 3). strong: the operations of the batch. position: the column of the crop in strong.
        out: float32 (S, S, 3).
        """
        groups, rows = strong
        steps = [step for step in range(len(groups)) if groups[step, position] != UNTOUCHED]
        if steps:
            # Copy per channel: NumPy takes seven times as long for all channels at once.
            for channel, plane in enumerate(self._planes):
                plane[:] = crop[:, :, channel]
            for step in steps:
                self._ops.run(int(groups[step, position]), self._planes, rows[step, position])
            for channel, plane in enumerate(self._planes):
                self._crop[:, :, channel] = plane
        self._normaliser.put(self._crop if steps else crop, out)
