"""Makes the test view of an image for a trained network, without the files of its data set."""

from dataclasses import dataclass

import numpy as np

from fastcpc.config.sizes import BILINEAR
from fastcpc.data.augment.random_crop import CropGeometry
from fastcpc.data.dataset import ImageTransform
from fastcpc.data.image_files import RESAMPLING, decode_image, read_bytes


@dataclass(frozen=True)
class InferenceTransform:
    """The test view. Digits and CIFAR are not resized; an image of another size is resized to their size.

    channels: 1 or 3. resize: length of the shorter side, pixels. crop: side of the square at the centre, pixels.
    mean, std: per channel, of pixels scaled to [0, 1]. interpolation: bilinear or bicubic.
    """

    channels: int
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = BILINEAR


def center_crop_view(path: str, inputs: InferenceTransform) -> np.ndarray:
    """The test view of an image file, uint8 (C, crop, crop), with the same pixels as in training.

    Raises BadImage where the file cannot be read.
    """
    image = decode_image(read_bytes(path))
    geometry = CropGeometry(ImageTransform(inputs.resize, inputs.crop, random_resized_crop=False, flip=False))
    resized_12 = geometry.resized(np.array([[image.height, image.width]]))
    (height, width), (top, left) = resized_12[0].tolist(), geometry.corners(np.empty((1, 0)), resized_12)[0].tolist()
    whole = image.resize((width, height), RESAMPLING[inputs.interpolation])
    square = whole.crop((left, top, left + inputs.crop, top + inputs.crop))
    pixels = np.asarray(square.convert("L"))[None] if inputs.channels == 1 else np.asarray(square).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)
