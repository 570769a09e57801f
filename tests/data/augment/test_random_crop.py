"""Geometry of views by value."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import dataset_of, levels, loader_of, texture
from PIL import Image
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

from fastcpc.data.augment.policies import AUTOAUGMENT_IMAGENET
from fastcpc.data.augment.random_crop import NUM_CROP, NUM_RESIZED, CropGeometry
from fastcpc.data.dataset import ImageTransform
from fastcpc.data.image_files import decode_image, read_bytes
from fastcpc.data.rng import generator


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (28, 28), (1, 1), (333, 29)])
def test_test_view_is_resize_then_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(texture(*size, 5)).save(path)
    (batch,) = loader_of(dataset_of([path]), "torch").stream([torch.tensor([0])], ["test"], 1)
    height, width = size
    tall, wide = int(28 * height / min(size)), int(28 * width / min(size))
    resized = np.asarray(decode_image(read_bytes(str(path))).resize((wide, tall), Image.Resampling.BILINEAR))
    top, left = round((tall - 24) / 2), round((wide - 24) / 2)
    expected = torch.from_numpy(resized[top : top + 24, left : left + 24].copy()).permute(2, 0, 1)
    apart = (levels(batch.views[0][0]) - expected).abs()
    assert apart.max() < 2.01 and apart.mean() < 0.1  # Pillow rounds between rows and columns


def test_weak_views_are_crops_of_the_resized_image() -> None:
    geometry = CropGeometry(ImageTransform(resize=28, crop=24, random_resized_crop=False, flip=True))
    drawn = geometry.draw("weak", 4000, generator(3))
    assert drawn.shape == (4000, NUM_CROP) and not geometry.is_resized_crop(drawn)
    resized = geometry.resized(np.tile([[56, 141]], (4000, 1)))
    assert (resized == [28, 70]).all()  # 70.5, rounded down
    corners = geometry.corners(drawn, resized)
    assert set(corners[:, 0]) == set(range(5)) and set(corners[:, 1]) == set(range(47))
    assert 0.46 < geometry.mirrored(drawn).mean() < 0.54


def test_random_resized_boxes() -> None:
    geometry = CropGeometry(ImageTransform(resize=28, crop=24, random_resized_crop=True, flip=False))
    drawn = geometry.draw("weak", 3000, generator(3))
    assert drawn.shape == (3000, NUM_RESIZED)
    top, left, bottom, right = geometry.boxes(drawn, np.tile([[400, 500]], (3000, 1))).T
    assert min(top.min(), left.min()) >= 0 and bottom.max() <= 400 and right.max() <= 500
    share, aspect = (bottom - top) * (right - left) / 200_000, (right - left) / (bottom - top)
    assert 0.079 < share.min() < 0.1 and 0.9 < share.max() <= 1
    assert 0.74 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.35
    assert np.array_equal(geometry.boxes(drawn[:1], np.array([[1, 3000]])), [[0, 1499, 1, 1500]])  # no try fits
    assert np.array_equal(geometry.boxes(drawn[:1], np.array([[3000, 30]])), [[1480, 0, 1520, 30]])


def test_imagenet_policy_is_torchvisions() -> None:
    theirs = AutoAugment(AutoAugmentPolicy.IMAGENET)._policies
    ours = [tuple((choice.op, choice.probability, choice.bin) for choice in row) for row in AUTOAUGMENT_IMAGENET]
    assert ours == theirs
