"""Computes where each view crops an image. All decoders use it.

A view is a crop of the resized image in whole pixels, or a random resized crop. A random resized crop has random area
and aspect ratio, and is resampled to a square. The random numbers are drawn before the size of the image is known.
"""

import numpy as np
import torch

from fastcpc.data.dataset import ImageTransform
from fastcpc.data.loaders.base import ViewName

TRIES = 10  # attempts of RandomResizedCrop to place a crop inside the image
AREA = (0.08, 1.0)  # share of the image area
ASPECT = (3 / 4, 4 / 3)  # width : height
NUM_CROP, NUM_RESIZED = 3, 3 + 2 * TRIES  # numbers per image: top, left, flip; then area and aspect of each try


class CropGeometry:
    """Computes the crops of a transform's views."""

    def __init__(self, transform: ImageTransform) -> None:
        self.transform = transform

    def draw(self, view: ViewName, num_images: int, generator: torch.Generator) -> np.ndarray:
        """Draw the random numbers of a view's geometry, float64 (B, R) in [0, 1). R is 0 for test views."""
        if view == "test":
            return np.empty((num_images, 0))
        width = NUM_RESIZED if self.transform.random_resized_crop else NUM_CROP
        return torch.rand(num_images, width, generator=generator, dtype=torch.float64).numpy()

    def is_resized_crop(self, drawn_BR: np.ndarray) -> bool:
        """Whether these numbers describe a random resized crop; else they describe a crop of the resized image."""
        return bool(drawn_BR.shape[1] == NUM_RESIZED)

    def resized(self, sizes_B2: np.ndarray) -> np.ndarray:
        """Height and width of the images after their shorter side is resized to ``resize``, int64 (B, 2).

        The longer side is rounded down, as in torchvision. sizes_B2: int64 (B, 2), height and width of each upright
        image, 1 or more.
        """
        shorter_B1: np.ndarray = sizes_B2.min(axis=1, keepdims=True)
        resized_B2: np.ndarray = self.transform.resize * sizes_B2 // shorter_B1
        return resized_B2

    def corners(self, drawn_BR: np.ndarray, resized_B2: np.ndarray) -> np.ndarray:
        """Top and left of crops of resized images, int64 (B, 2). Test views use the centre."""
        room_B2 = resized_B2 - self.transform.crop
        place_B2 = np.floor(drawn_BR[:, :2] * (room_B2 + 1)) if drawn_BR.shape[1] else np.rint(room_B2 / 2)
        return place_B2.astype(np.int64)

    def boxes(self, drawn_BR: np.ndarray, sizes_B2: np.ndarray) -> np.ndarray:
        """Random resized crops (top, left, bottom, right) in pixels, float64 (B, 4). sizes_B2: see ``resized``."""
        sizes_B2 = sizes_B2.astype(np.float64)
        corner_B2, extent_B2 = _random_resized(drawn_BR, sizes_B2)
        return np.concatenate((corner_B2, corner_B2 + extent_B2), axis=1)

    def mirrored(self, drawn_BR: np.ndarray) -> np.ndarray:
        """Which views are mirrored left to right, bool (B,)."""
        if not drawn_BR.shape[1] or not self.transform.flip:
            return np.zeros(len(drawn_BR), bool)
        return drawn_BR[:, 2] < 0.5


def _random_resized(drawn_BR: np.ndarray, sizes_B2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RandomResizedCrop (Szegedy et al. 2015): corner and extent, float64 (B, 2) each.

    It takes the first of ten crops that fits inside the image. If none fits, it takes the largest central crop of an
    allowed aspect ratio.
    """
    area_BT, aspect_BT = drawn_BR[:, 3 : 3 + TRIES], drawn_BR[:, 3 + TRIES :]
    area_BT = sizes_B2.prod(axis=1, keepdims=True) * (AREA[0] + (AREA[1] - AREA[0]) * area_BT)
    low, high = np.log(ASPECT)
    aspect_BT = np.exp(low + (high - low) * aspect_BT)
    tries_BT2 = np.rint(np.stack((np.sqrt(area_BT / aspect_BT), np.sqrt(area_BT * aspect_BT)), axis=2))
    fits_BT = ((tries_BT2 >= 1) & (tries_BT2 <= sizes_B2[:, None])).all(axis=2)
    first_B = fits_BT.argmax(axis=1)
    extent_B2 = tries_BT2[np.arange(len(first_B)), first_B]
    corner_B2 = np.floor(drawn_BR[:, :2] * (sizes_B2 - extent_B2 + 1))
    height_B, width_B = sizes_B2.T
    widest_B2 = np.stack(
        (
            np.maximum(1, np.minimum(height_B, np.rint(width_B / ASPECT[0]))),
            np.maximum(1, np.minimum(width_B, np.rint(height_B * ASPECT[1]))),
        ),
        axis=1,
    )
    none_fits = ~fits_BT.any(axis=1)
    extent_B2[none_fits] = widest_B2[none_fits]
    corner_B2[none_fits] = np.floor((sizes_B2 - widest_B2)[none_fits] / 2)
    return corner_B2, extent_B2
