"""AugDMix's style of the strong views against Pillow itself, by value, on groups of images and on single images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_images import CPU, batches_of, dataset_of, levels, texture
from PIL import Image, ImageEnhance, ImageOps

from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.data.augment.batched import GROUPS, MOVED, OPERATIONS, UNTOUCHED, StrongAugmenter
from fastcpc.data.augment.batched_ops import affine, centred_grid
from fastcpc.data.augment.cpu_ops import CpuOps, CpuStrongAugmenter
from fastcpc.data.augment.normalize import Normaliser
from fastcpc.data.augment.policies import (
    AUTOAUGMENT_CIFAR10,
    AUTOAUGMENT_IMAGENET,
    MAGNITUDES,
    Choice,
    StrongPolicy,
    strong_policy,
)
from fastcpc.data.augment.styles import AUGDMIX, TORCHVISION
from fastcpc.data.loaders.dali_pipeline import dali_problem
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.rng import generator

GREY = (128, 128, 128)
SIDES = [7, 32, 33, 64]
# Pillow rounds the grey image, torchvision and we round it down; blends of it differ by one level.
EXACT = {"Rotate", "TranslateX", "TranslateY", "Solarize", "Posterize", "Invert", "Equalize"}
OPS = sorted({choice.op for row in AUTOAUGMENT_CIFAR10 + AUTOAUGMENT_IMAGENET for choice in row} | {"ShearX"})


def by_pillow(image: Image.Image, op: str, magnitude: float) -> Image.Image:
    """The operation as AugDMix's policy applies it. magnitude: signed; translations in shares of the side."""
    if op in ("ShearX", "ShearY"):
        matrix = (1, magnitude, 0, 0, 1, 0) if op == "ShearX" else (1, 0, 0, magnitude, 1, 0)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=GREY)
    if op in ("TranslateX", "TranslateY"):
        shift = magnitude * image.width
        matrix = (1, 0, shift, 0, 1, 0) if op == "TranslateX" else (1, 0, 0, 0, 1, shift)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=GREY)
    if op == "Rotate":
        turned = image.convert("RGBA").rotate(magnitude)
        return Image.composite(turned, Image.new("RGBA", turned.size, (128,) * 4), turned).convert(image.mode)
    if op in ("Color", "Contrast", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, op)(image).enhance(1 + magnitude)
    if op == "Posterize":
        return ImageOps.posterize(image, int(magnitude))
    if op == "Solarize":
        return ImageOps.solarize(image, magnitude)  # type: ignore[arg-type]
    return {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}[op](image)


def pillow_magnitude(op: str, step: int) -> float:
    """AugDMix's ranges by bin, written out."""
    ranges = {
        "ShearX": np.linspace(0, 0.3, 10), "ShearY": np.linspace(0, 0.3, 10),
        "TranslateX": np.linspace(0, 150 / 331, 10), "TranslateY": np.linspace(0, 150 / 331, 10),
        "Rotate": np.linspace(0, 30, 10), "Posterize": np.round(np.linspace(8, 4, 10), 0),
        "Solarize": np.linspace(256, 0, 10),
    }  # fmt: skip
    return float(ranges.get(op, np.linspace(0.0, 0.9, 10))[step])


def images(side: int) -> np.ndarray:
    """uint8 (4, S, S, 3): two textures, noise, one of a single level."""
    made = np.stack([texture(side, side, seed) for seed in range(4)])
    made[2] = np.random.default_rng(side).integers(0, 256, made[2].shape)
    made[3] = 77
    return made


def signed_magnitudes(op: str) -> list[tuple[int, float]]:
    """Bin and sign of all strengths that AugDMix draws. Bin 0 of solarize does not occur in the policies."""
    if op not in MAGNITUDES:
        return [(0, 1.0)]
    signs = (1.0, -1.0) if op in AUGDMIX.signed else (1.0,)
    return [(step, sign) for step in range(op == "Solarize", 10) for sign in signs]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("op", OPS)
def test_operations_equal_pillow(op: str, side: int) -> None:
    group, given = GROUPS.index(AUGDMIX.group(op)), images(side)
    grid, one = centred_grid(side, side, torch.device("cpu")), CpuOps(side, AUGDMIX.fill)
    stack = torch.from_numpy(given.transpose(0, 3, 1, 2).copy())
    for step, sign in signed_magnitudes(op):
        ours_unit = float(MAGNITUDES[op](10, side)[step]) if op in MAGNITUDES else 0.0
        row = torch.tensor(AUGDMIX.strengths(op, sign * ours_unit, side), dtype=torch.float32)
        rows = row.repeat(4, 1)
        made = (
            affine(stack, rows, grid, AUGDMIX.fill)
            if group == MOVED
            else OPERATIONS[GROUPS[group]](stack.clone(), rows)
        )
        magnitude = sign * pillow_magnitude(op, step) if op in MAGNITUDES else 0.0
        for image, ours, planes in zip(given, made.numpy(), stack.numpy(), strict=True):
            theirs = np.asarray(by_pillow(Image.fromarray(image), op, magnitude)).transpose(2, 0, 1)
            single = planes.copy()
            one.run(group, single, row.numpy())
            for name, values in (("batched", ours), ("single", single)):
                apart = np.abs(values.astype(int) - theirs.astype(int))
                what = f"{name} {op} at {magnitude:g}: {apart.max()} levels, {(apart > 0).mean():.4f} of the pixels"
                if op == "Rotate":  # the last bit decides which pixel is nearest at a border
                    assert (apart.max(axis=0) > 0).mean() <= 2 / side, what
                else:
                    certain = apart[:, ~at_the_edge(op, magnitude, side)]
                    assert certain.max() <= (0 if op in EXACT else 1), what


def at_the_edge(op: str, magnitude: float, side: int) -> np.ndarray:
    """Output pixels (S, S) of a shear whose source is on the edge of the image, where the last bit decides."""
    if not op.startswith("Shear"):
        return np.zeros((side, side), np.bool_)
    centre = np.arange(side) + 0.5
    source = centre + magnitude * centre[:, None]
    edge = np.minimum(np.abs(source), np.abs(source - side)) < 1e-4
    assert edge.mean() < 0.03
    return edge if op == "ShearX" else edge.T


def test_rotations_turn_left_only() -> None:
    policy = StrongPolicy(((Choice("Rotate", 1.0, 9),),), 10, style="augdmix")
    _, rows = StrongAugmenter(policy, 32, torch.device("cpu")).draw(64, generator(1))
    assert len(rows[0].unique(dim=0)) == 1
    both = StrongPolicy(policy.rows, 10)
    _, rows = StrongAugmenter(both, 32, torch.device("cpu")).draw(64, generator(1))
    assert len(rows[0].unique(dim=0)) == 2


@pytest.mark.parametrize("op", ["Rotate", "TranslateX", "TranslateY", "ShearX", "ShearY"])
def test_pixels_from_outside_are_grey_in_one_style_and_black_in_the_other(op: str) -> None:
    for style, fill in (("augdmix", 128), ("torchvision", 0)):
        policy = StrongPolicy(((Choice(op, 1.0, 9),),), 10, style=style)  # type: ignore[arg-type]
        augmenter = StrongAugmenter(policy, 32, torch.device("cpu"))
        draw = augmenter.draw(8, generator(2))
        plan, white = augmenter.arrange(*draw), torch.full((8, 3, 32, 32), 255, dtype=torch.uint8)
        views = augmenter.apply(white, plan)
        assert views.unique().tolist() == [fill, 255]
        side = Normaliser((0, 0, 0), (1 / 255,) * 3, 32)
        out = np.zeros((32, 32, 3), np.float32)
        CpuStrongAugmenter(side, fill).put(
            np.full((32, 32, 3), 255, np.uint8), (draw[0].numpy(), draw[1].numpy()), 0, out
        )
        assert np.unique(out.round(3)).tolist() == [fill, 255]


@pytest.mark.parametrize("images", [False, True])
def test_the_setting_selects_the_style(images: bool) -> None:
    assert strong_policy(AugmentConfig(), images=images).style == "torchvision"
    assert strong_policy(AugmentConfig(style="augdmix"), images=images).style == "augdmix"


def test_both_styles_draw_the_same_operations() -> None:
    """The style changes how an operation is applied, not which one is drawn."""
    names = []
    for style in (TORCHVISION, AUGDMIX):
        policy = strong_policy(AugmentConfig(style="augdmix" if style is AUGDMIX else "torchvision"))
        groups, _ = StrongAugmenter(policy, 32, torch.device("cpu")).draw(500, generator(5))
        kinds = {GROUPS.index(style.group(choice.op)): choice.op for row in policy.rows for choice in row}
        joined = {"ShearX": "moved", "ShearY": "moved", "TranslateX": "moved", "TranslateY": "moved", "Rotate": "moved"}
        drawn = [kinds.get(group, "none") for group in groups.flatten().tolist()]
        names.append([joined.get(name, name) for name in drawn])
        assert UNTOUCHED in groups
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "feed", ["torch", pytest.param("dali", marks=pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali"))]
)
def test_loaders_of_image_files_fill_with_the_level_of_the_style(tmp_path: Path, feed: Any) -> None:
    """White images: turned ones show the fill, and no other operation of the policy makes it."""
    paths = [tmp_path / f"{number}.png" for number in range(24)]
    for path in paths:
        Image.new("RGB", (30, 30), (255, 255, 255)).save(path)
    dataset, found = dataset_of(paths), {}
    for style in ("torchvision", "augdmix"):
        augment = AugmentConfig(style=style)  # type: ignore[arg-type]
        loader = make_loader(dataset.train, dataset, DataConfig(feed=feed, workers=1), augment, CPU)
        (batch,) = loader.stream(batches_of(24, 24), ("strong",), 1)
        found[style] = 128 in levels(batch.views[0]).round()
    assert found == {"torchvision": False, "augdmix": True}
