"""Where in a photo a view is cut: boxes from random numbers that are drawn before the photo's size is known.

A view is one resampling of one box of the decoded photo, whatever decodes it. "Resize the shorter side, then crop" is
such a box as well, of the same pixels, and costs neither the resized photo nor its memory.
"""

import numpy as np
import torch

from fastcpc.data.feed import ViewName
from fastcpc.data.split import PhotoTransform

TRIES = 10  # of RandomResizedCrop, until a box lies inside the photo
AREA = (0.08, 1.0)  # share of the photo
ASPECT = (3 / 4, 4 / 3)  # width : height
NUM_CROP, NUM_RESIZED = 3, 3 + 2 * TRIES  # numbers a photo: place, place, flip; then area and aspect of each try


class PhotoGeometry:
    """Boxes of a transform's views."""

    def __init__(self, transform: PhotoTransform) -> None:
        self.transform = transform

    def draw(self, view: ViewName, num_images: int, generator: torch.Generator) -> np.ndarray:
        """What is random in a view's geometry, float64 (B, R) in [0, 1); R is 0 for test views."""
        if view == "test":
            return np.empty((num_images, 0))
        width = NUM_RESIZED if self.transform.random_resized_crop else NUM_CROP
        return torch.rand(num_images, width, generator=generator, dtype=torch.float64).numpy()

    def boxes(self, drawn_BR: np.ndarray, sizes_B2: np.ndarray) -> np.ndarray:
        """Boxes (top, left, bottom, right) in pixels of photos, float64 (B, 4); left > right in mirrored views.

        drawn_BR: of ``draw``, for one view. sizes_B2: height and width of each upright photo, 1 or more.
        """
        sizes_B2 = sizes_B2.astype(np.float64)
        if drawn_BR.shape[1] == NUM_RESIZED:
            corner_B2, extent_B2 = _random_resized(drawn_BR, sizes_B2)
        else:
            corner_B2, extent_B2 = self._resize_then_crop(drawn_BR, sizes_B2)
        boxes_B4 = np.concatenate((corner_B2, np.minimum(corner_B2 + extent_B2, sizes_B2)), axis=1)
        if drawn_BR.shape[1] and self.transform.flip:
            mirrored = drawn_BR[:, 2] < 0.5
            boxes_B4[mirrored] = boxes_B4[mirrored][:, [0, 3, 2, 1]]
        return boxes_B4

    def _resize_then_crop(self, drawn_BR: np.ndarray, sizes_B2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels that a crop of the resized photo would show. The longer side is rounded down, as torchvision does
        it; a crop's corner is a whole pixel of the resized photo."""
        crop = self.transform.crop
        shorter_B1 = sizes_B2.min(axis=1, keepdims=True)
        resized_B2 = np.floor(self.transform.resize * sizes_B2 / shorter_B1)
        room_B2 = resized_B2 - crop
        place_B2 = np.floor(drawn_BR[:, :2] * (room_B2 + 1)) if drawn_BR.shape[1] else np.rint(room_B2 / 2)
        scale_B2 = sizes_B2 / resized_B2
        return place_B2 * scale_B2, crop * scale_B2


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
