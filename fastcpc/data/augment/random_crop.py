"""Where in a photo a view is cut, from random numbers that are drawn before the photo's size is known.

A view is a crop of the resized photo (whole pixels of it), or a box of random area and shape that is resampled to a
square, whatever decodes the photo.
"""

import numpy as np
import torch

from fastcpc.data.dataset import ImageTransform
from fastcpc.data.loaders.base import ViewName

TRIES = 10  # of RandomResizedCrop, until a box lies inside the photo
AREA = (0.08, 1.0)  # share of the photo
ASPECT = (3 / 4, 4 / 3)  # width : height
NUM_CROP, NUM_RESIZED = 3, 3 + 2 * TRIES  # numbers a photo: place, place, flip; then area and aspect of each try


class CropGeometry:
    """Boxes of a transform's views."""

    def __init__(self, transform: ImageTransform) -> None:
        self.transform = transform

    def draw(self, view: ViewName, num_images: int, generator: torch.Generator) -> np.ndarray:
        """What is random in a view's geometry, float64 (B, R) in [0, 1); R is 0 for test views."""
        if view == "test":
            return np.empty((num_images, 0))
        width = NUM_RESIZED if self.transform.random_resized_crop else NUM_CROP
        return torch.rand(num_images, width, generator=generator, dtype=torch.float64).numpy()

    def is_resized_crop(self, drawn_BR: np.ndarray) -> bool:
        """Whether a view of these numbers is a resampled box; else it is a crop of the resized photo."""
        return bool(drawn_BR.shape[1] == NUM_RESIZED)

    def resized(self, sizes_B2: np.ndarray) -> np.ndarray:
        """Height and width of photos once their shorter side is ``resize``, int64 (B, 2); the longer side is rounded
        down, as torchvision does it. sizes_B2: int64 (B, 2), height and width of each upright photo, 1 or more."""
        shorter_B1: np.ndarray = sizes_B2.min(axis=1, keepdims=True)
        resized_B2: np.ndarray = self.transform.resize * sizes_B2 // shorter_B1
        return resized_B2

    def corners(self, drawn_BR: np.ndarray, resized_B2: np.ndarray) -> np.ndarray:
        """Top and left of crops of resized photos, int64 (B, 2): drawn, or of the square at the centre."""
        room_B2 = resized_B2 - self.transform.crop
        place_B2 = np.floor(drawn_BR[:, :2] * (room_B2 + 1)) if drawn_BR.shape[1] else np.rint(room_B2 / 2)
        return place_B2.astype(np.int64)

    def boxes(self, drawn_BR: np.ndarray, sizes_B2: np.ndarray) -> np.ndarray:
        """Boxes (top, left, bottom, right) in pixels of photos, float64 (B, 4). sizes_B2: as in ``resized``."""
        sizes_B2 = sizes_B2.astype(np.float64)
        corner_B2, extent_B2 = _random_resized(drawn_BR, sizes_B2)
        return np.concatenate((corner_B2, corner_B2 + extent_B2), axis=1)

    def mirrored(self, drawn_BR: np.ndarray) -> np.ndarray:
        """Which views are mirrored left to right, bool (B,)."""
        if not drawn_BR.shape[1] or not self.transform.flip:
            return np.zeros(len(drawn_BR), bool)
        return drawn_BR[:, 2] < 0.5


def _random_resized(drawn_BR: np.ndarray, sizes_B2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RandomResizedCrop (Szegedy et al. 2015): the first of ten boxes that lies inside, else the largest at the centre
    whose aspect is allowed."""
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
