"""What the networks of a data set see of a picture, known without the data set's files."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fastcpc.config.checks import PHOTOS
from fastcpc.config.schema import DataConfig
from fastcpc.data import digits
from fastcpc.data.cifar_facts import CIFAR10, CIFAR100
from fastcpc.data.geometry import PhotoGeometry
from fastcpc.data.photo_files import read_bytes, read_photo
from fastcpc.data.photos import clothing1m
from fastcpc.data.photos.listing import IMAGENET_MEAN, IMAGENET_STD
from fastcpc.data.split import RGB, PhotoTransform

DIGITS_SIZE = 8


@dataclass(frozen=True)
class Inputs:
    """The test view. channels: 1 or 3. resize: length of the shorter side, pixels; crop: side of the square cut from
    the centre. mean, std: per channel, of pixels scaled to [0, 1]."""

    channels: int
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def inputs_of(data: DataConfig) -> Inputs:
    """The test view of a data set. Digits and CIFAR are not resized; a picture of another size is, to theirs."""
    if data.name == "digits":
        return Inputs(1, DIGITS_SIZE, DIGITS_SIZE, digits.MEAN, digits.STD)
    if data.name in PHOTOS:
        mean, std = (clothing1m.MEAN, clothing1m.STD) if data.name == "clothing1m" else (IMAGENET_MEAN, IMAGENET_STD)
        return Inputs(RGB, data.resize, data.crop, mean, std)
    facts = CIFAR10 if data.name == "cifar10" else CIFAR100
    return Inputs(RGB, facts.image_size, facts.image_size, facts.mean, facts.std)


def centre_view(path: str, inputs: Inputs) -> np.ndarray:
    """A picture as the networks see it, uint8 (C, crop, crop): the pixels of training's own test view.

    Raises BadImage where the file cannot be read.
    """
    photo = read_photo(read_bytes(path))
    geometry = PhotoGeometry(PhotoTransform(inputs.resize, inputs.crop, random_resized_crop=False, flip=False))
    resized_12 = geometry.resized(np.array([[photo.height, photo.width]]))
    (height, width), (top, left) = resized_12[0].tolist(), geometry.corners(np.empty((1, 0)), resized_12)[0].tolist()
    whole = photo.resize((width, height), Image.Resampling.BILINEAR)
    cut = whole.crop((left, top, left + inputs.crop, top + inputs.crop))
    pixels = np.asarray(cut.convert("L"))[None] if inputs.channels == 1 else np.asarray(cut).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)
