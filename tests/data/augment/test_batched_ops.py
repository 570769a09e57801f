"""Each image operation against torchvision.transforms.v2, with the same strengths, by value."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy, InterpolationMode, RandAugment

from fastcpc.data.augment.batched_ops import AFFINE_OPS, POINT_OPS, affine, centred_grid, strengths
from fastcpc.data.augment.policies import AUTOAUGMENT_CIFAR10, GEOMETRIC_OPS, MAGNITUDES, RANDAUGMENT_OPS, SIGNED

SHAPES = [(3, 32), (3, 7), (1, 8), (1, 33)]
# torchvision blends with fused multiply-adds: a last bit of float32, cut off to a whole level.
BLENDS = {"Color", "Contrast", "Sharpness"}
REFERENCE = AutoAugment(AutoAugmentPolicy.CIFAR10)


def torchvision_op(image: Tensor, op: str, magnitude: float) -> Tensor:
    nearest = InterpolationMode.NEAREST
    return REFERENCE._apply_image_or_video_transform(image, op, magnitude, nearest, REFERENCE._fill)


def images_of(channels: int, size: int) -> Tensor:
    """Random, low-contrast, flat, black, white and two-valued images."""
    draws = torch.Generator().manual_seed(size)
    images = torch.randint(0, 256, (6, channels, size, size), generator=draws).to(torch.uint8)
    images[1] = images[1] // 8 + 40
    images[2], images[3], images[4] = 77, 0, 255
    images[5] = (images[5] > 100) * 255
    return images


def settings(op: str, size: int) -> list[float]:
    """Every signed magnitude of both policies."""
    if op not in MAGNITUDES:
        return [0.0]
    values = [float(value) for bins in (10, 31) for value in MAGNITUDES[op](bins, size)]
    return values + [-value for value in values] if op in SIGNED else values


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("op", POINT_OPS)
def test_point_operations(op: str, channels: int, size: int) -> None:
    images = images_of(channels, size)
    for magnitude in settings(op, size):
        rows = torch.tensor([strengths(op, magnitude, size)] * len(images))
        ours = POINT_OPS[op](images.clone(), rows)
        theirs = torchvision_op(images, op, magnitude)
        assert ours.dtype == torch.uint8
        assert ours.shape == images.shape
        worst = int((ours.int() - theirs.int()).abs().max())
        assert worst <= (1 if op in BLENDS else 0), f"{op} at {magnitude}: {worst} levels apart"


def ties(rows: Tensor, size: int) -> Tensor:
    """Output pixels (S, S) that come from the border between two pixels, where rounding decides."""
    centre = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    a, b, c, d, e, f = (rows.double() * size / 2).tolist()
    source = torch.stack((a * x + b * y + c, d * x + e * y + f)) + (size - 1) / 2
    return ((source - source.floor() - 0.5).abs() < 1e-4).any(0)


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("op", AFFINE_OPS)
def test_geometric_operations(op: str, channels: int, size: int) -> None:
    images, grid = images_of(channels, size), centred_grid(size, size, torch.device("cpu"))
    for magnitude in settings(op, size):
        rows = torch.tensor([strengths(op, magnitude, size)] * len(images))
        ours, theirs = affine(images, rows, grid), torchvision_op(images, op, magnitude)
        # Where the size is a power of two all coordinates are exact, and so is the choice at a border.
        certain = torch.ones(size, size, dtype=torch.bool) if size in (8, 32) else ~ties(rows[0], size)
        assert certain.float().mean() > 0.75
        assert (ours == theirs)[:, :, certain].all(), f"{op} at {magnitude}"
        assert affine(images.float(), rows, grid).equal(ours.float())


def test_each_image_has_its_own_strength() -> None:
    """A group of mixed strengths equals images done one by one."""
    images, grid = images_of(3, 32), centred_grid(32, 32, torch.device("cpu"))
    for op in (*POINT_OPS, "Rotate"):
        values = (settings(op, 32) * 6)[:6]
        rows = torch.tensor([strengths(op, value, 32) for value in values])
        run = POINT_OPS[op] if op in POINT_OPS else lambda part, some: affine(part, some, grid)
        one_by_one = torch.cat([run(images[i : i + 1].clone(), rows[i : i + 1]) for i in range(6)])
        assert run(images.clone(), rows).equal(one_by_one), op


def test_tiny_images_are_not_sharpened() -> None:
    images = images_of(3, 2)
    rows = torch.tensor([strengths("Sharpness", 0.9, 2)] * 6)
    assert POINT_OPS["Sharpness"](images, rows).equal(images)


def test_hand_worked_values() -> None:
    """One 2x2 image per operation, worked out on paper."""
    image = torch.tensor([[[[0, 100], [170, 255]]]], dtype=torch.uint8)

    def run(op: str, magnitude: float) -> list[int]:
        rows = torch.tensor([strengths(op, magnitude, 2)])
        return POINT_OPS[op](image.clone(), rows).flatten().tolist()

    assert run("Invert", 0.0) == [255, 155, 85, 0]
    assert run("Brightness", 0.5) == [0, 150, 255, 255]
    assert run("Contrast", -0.5) == [65, 115, 150, 193]  # half way to the mean, 131.25
    assert run("Posterize", 4) == [0, 96, 160, 240]
    assert run("Solarize", float(np.float32(2 / 3))) == [0, 100, 85, 0]  # the threshold is 170 itself
    assert run("AutoContrast", 0.0) == [0, 100, 170, 255]
    assert run("Equalize", 0.0) == [0, 100, 170, 255]  # too few pixels to equalize
    assert run("Color", -0.9) == [0, 100, 170, 255]  # grey stays grey


def test_translation_moves_content_right_and_down() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    grid = centred_grid(3, 3, torch.device("cpu"))
    right = affine(image, torch.tensor([strengths("TranslateX", 1.9, 3)]), grid)
    down = affine(image, torch.tensor([strengths("TranslateY", 1.0, 3)]), grid)
    assert right.flatten().tolist() == [0, 1, 2, 0, 4, 5, 0, 7, 8]
    assert down.flatten().tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_autoaugment_table_is_torchvisions() -> None:
    ours = [tuple((choice.op, choice.probability, choice.bin) for choice in row) for row in AUTOAUGMENT_CIFAR10]
    assert len(ours) == 25
    assert ours == list(REFERENCE._get_policies(AutoAugmentPolicy.CIFAR10))


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize(("reference", "bins"), [(AutoAugment, 10), (RandAugment, 31)])
def test_magnitudes_are_torchvisions(reference: type, bins: int, size: int) -> None:
    for op, (make, signed) in reference._AUGMENTATION_SPACE.items():  # type: ignore[attr-defined]
        theirs = make(bins, size, size)
        assert (theirs is None) == (op not in MAGNITUDES)
        assert signed == (op in SIGNED)
        if theirs is not None:
            assert theirs.double().equal(MAGNITUDES[op](bins, size).double()), op


def test_randaugment_operations_are_torchvisions() -> None:
    assert set(RANDAUGMENT_OPS) == set(RandAugment._AUGMENTATION_SPACE)
    assert set(GEOMETRIC_OPS) == set(AFFINE_OPS) < set(RANDAUGMENT_OPS)
