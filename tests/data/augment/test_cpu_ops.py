"""Operations on one image, and strong views made of them, against the same on groups of images, by value."""

import numpy as np
import pytest
import torch
from made_images import texture

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.augment.batched import GROUPS, MOVED, StrongAugmenter
from fastcpc.data.augment.batched_ops import AFFINE_OPS, POINT_OPS, affine, centred_grid, strengths
from fastcpc.data.augment.cpu_ops import CpuOps, CpuStrongAugmenter
from fastcpc.data.augment.normalize import Normaliser
from fastcpc.data.augment.policies import MAGNITUDES, SIGNED, strong_policy
from fastcpc.data.rng import generator

SIDES = [1, 2, 3, 33, 66, 224]


def images(side: int) -> np.ndarray:
    """uint8 (6, 3, S, S): textures, noise, one of few levels, one of a single level, one with a flat channel."""
    made = np.stack([texture(side, side, seed).transpose(2, 0, 1) for seed in range(6)])
    made[1] = np.random.default_rng(side).integers(0, 256, made[1].shape)
    made[3] = made[3] // 64 + 3
    made[4] = 77
    made[5, 1] = 200
    return np.ascontiguousarray(made)


def magnitudes(op: str, side: int) -> list[float]:
    """Every signed magnitude of both policies."""
    if op not in MAGNITUDES:
        return [0.0]
    values = [float(value) for bins in (10, 31) for value in MAGNITUDES[op](bins, side)]
    return values + [-value for value in values] if op in SIGNED else values


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("op", POINT_OPS)
def test_point_operations_equal_the_batched_ones(op: str, side: int) -> None:
    ops, given = CpuOps(side), images(side)
    for magnitude in magnitudes(op, side)[:: 1 if side < 100 else 7]:
        row = np.array(strengths(op, magnitude, side), np.float32)
        expected = POINT_OPS[op](torch.from_numpy(given.copy()), torch.from_numpy(row).repeat(6, 1)).numpy()
        for image, wanted in zip(given.copy(), expected, strict=True):
            ops.run(GROUPS.index(op), image, row)
            apart = np.abs(image.astype(int) - wanted.astype(int))
            assert apart.max() <= 1, f"{op} at {magnitude}"
            assert (apart > 0).mean() < 1e-3, f"{op} at {magnitude}"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("op", AFFINE_OPS)
def test_geometric_operations_equal_the_batched_ones(op: str, side: int) -> None:
    """Away from the border between two pixels, where float32's last bit decides."""
    ops, given, grid = CpuOps(side), images(side), centred_grid(side, side, torch.device("cpu"))
    for magnitude in magnitudes(op, side)[:: 1 if side < 100 else 7]:
        row = np.array(strengths(op, magnitude, side), np.float32)
        expected = affine(torch.from_numpy(given), torch.from_numpy(row).repeat(6, 1), grid).numpy()
        certain = ~borders(row, side)
        assert certain.mean() > 0.75 or side < 4
        for image, wanted in zip(given.copy(), expected, strict=True):
            ops.run(MOVED, image, row)
            assert (image == wanted)[:, certain].all(), f"{op} at {magnitude}"


def borders(row: np.ndarray, side: int) -> np.ndarray:
    """Output pixels (S, S) that come from the border between two pixels."""
    centre = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(centre, centre, indexing="ij")
    a, b, c, d, e, f = (row.astype(np.float64) * side / 2).tolist()
    source = np.stack((a * x + b * y + c, d * x + e * y + f)) + (side - 1) / 2
    borderline: np.ndarray = (np.abs(source - np.floor(source) - 0.5) < 1e-4).any(axis=0)
    return borderline


@pytest.mark.parametrize("strong", ["autoaugment", "randaugment", "geometric"])
def test_strong_views_equal_the_batched_ones(strong: str) -> None:
    side, mean, std = 66, (0.3, 0.5, 0.6), (0.2, 0.25, 0.3)
    policy = strong_policy(AugmentConfig(strong=strong), images=True)  # type: ignore[arg-type]
    augmenter, one = StrongAugmenter(policy, side, torch.device("cpu")), CpuStrongAugmenter(Normaliser(mean, std, side))
    given = np.concatenate([images(side)] * 8)
    draw = augmenter.draw(len(given), generator(1))
    plan, start = augmenter.arrange(*draw), torch.from_numpy(given.copy())
    levels = augmenter.apply(start if plan.moves is None else start[plan.moves[0]], plan).permute(0, 2, 3, 1).numpy()
    expected, untouched = ((level / 255 - mean) / std for level in (levels, given.transpose(0, 2, 3, 1)))
    out = np.zeros((len(given), side, side, 3), np.float32)
    for i, image in enumerate(given):
        crop = np.ascontiguousarray(image[:, :, ::-1].transpose(1, 2, 0))[:, ::-1]  # strides of a mirrored crop
        kept = crop.copy()
        one.put(crop, (draw[0].numpy(), draw[1].numpy()), i, out[i])
        assert (crop == kept).all()
    apart = (np.abs(out - expected) > 1e-5).mean(axis=(1, 2, 3))
    assert np.median(apart) == 0
    assert apart.max() < 5e-3  # pixels from the border between two, and what they change in a histogram
    assert (np.abs(out - untouched) > 1e-5).any(axis=(1, 2, 3)).mean() > 0.5


def test_a_side_whose_places_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="side: expected at most 4094, got 4095"):
        CpuOps(4095)
