"""What the networks of a data set see of a picture, known without the data set's files."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fastcpc.config.schema import DataConfig
from fastcpc.config.validation import PHOTOS
from fastcpc.data.augment.random_crop import CropGeometry
from fastcpc.data.dataset import RGB, ImageTransform
from fastcpc.data.datasets import clothing1m, digits
from fastcpc.data.datasets.cifar_meta import CIFAR10, CIFAR100
from fastcpc.data.datasets.listing import IMAGENET_MEAN, IMAGENET_STD
from fastcpc.data.loaders.image_files import decode_image, read_bytes

DIGITS_SIZE = 8


@dataclass(frozen=True)
class InferenceTransform:
    """The test view. channels: 1 or 3. resize: length of the shorter side, pixels; crop: side of the square cut from
    the centre. mean, std: per channel, of pixels scaled to [0, 1]."""

    channels: int
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def inference_transform(data: DataConfig) -> InferenceTransform:
    """The test view of a data set. Digits and CIFAR are not resized; a picture of another size is, to theirs."""
    if data.name == "digits":
        return InferenceTransform(1, DIGITS_SIZE, DIGITS_SIZE, digits.MEAN, digits.STD)
    if data.name in PHOTOS:
        mean, std = (clothing1m.MEAN, clothing1m.STD) if data.name == "clothing1m" else (IMAGENET_MEAN, IMAGENET_STD)
        return InferenceTransform(RGB, data.resize, data.crop, mean, std)
    facts = CIFAR10 if data.name == "cifar10" else CIFAR100
    return InferenceTransform(RGB, facts.image_size, facts.image_size, facts.mean, facts.std)


def center_crop_view(path: str, inputs: InferenceTransform) -> np.ndarray:
    """A picture as the networks see it, uint8 (C, crop, crop): the pixels of training's own test view.

    Raises BadImage where the file cannot be read.
    """
    image = decode_image(read_bytes(path))
    geometry = CropGeometry(ImageTransform(inputs.resize, inputs.crop, random_resized_crop=False, flip=False))
    resized_12 = geometry.resized(np.array([[image.height, image.width]]))
    (height, width), (top, left) = resized_12[0].tolist(), geometry.corners(np.empty((1, 0)), resized_12)[0].tolist()
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    decode = whole.crop((left, top, left + inputs.crop, top + inputs.crop))
    pixels = np.asarray(decode.convert("L"))[None] if inputs.channels == 1 else np.asarray(decode).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)
