"""Whole views: what is drawn and how often, and that a batch comes out as its images would one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy, InterpolationMode

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.augment.batched import GROUPS, Cropper, StrongAugmenter, StrongPlan
from fastcpc.data.augment.batched_ops import AFFINE_OPS, strengths
from fastcpc.data.augment.policies import MAGNITUDES, SIGNED, Choice, StrongPolicy, WeakPolicy, strong_policy
from fastcpc.data.rng import generator

CPU = torch.device("cpu")
REFERENCE = AutoAugment(AutoAugmentPolicy.CIFAR10)


def policy_of(name: Any, **settings: int) -> StrongPolicy:
    return strong_policy(AugmentConfig(strong=name, **settings))


def in_order(images: Tensor, plan: StrongPlan) -> Tensor:
    """As the feed does it: images come in the order of the first step."""
    return images.clone() if plan.moves is None else images[plan.moves[0]]


def decode(policy: StrongPolicy, size: int) -> dict[tuple[float, ...], tuple[str, float]]:
    """From a group and strengths back to the operation and its signed magnitude."""
    table = {}
    for row in policy.rows:
        for choice in row:
            value = 0.0 if choice.bin is None else float(MAGNITUDES[choice.op](policy.num_bins, size)[choice.bin])
            for signed in (value, -value) if choice.op in SIGNED else (value,):
                numbers = torch.tensor(strengths(choice.op, signed, size), dtype=torch.float32).tolist()
                group = "affine" if choice.op in AFFINE_OPS else choice.op
                table[(GROUPS.index(group), *numbers)] = (choice.op, signed)
    return table


@pytest.mark.parametrize("name", ["autoaugment", "randaugment", "geometric"])
@pytest.mark.parametrize(("channels", "size", "num"), [(3, 32, 64), (1, 8, 33), (3, 7, 1), (1, 16, 2)])
def test_batch_equals_torchvision_one_by_one(name: str, channels: int, size: int, num: int) -> None:
    """The same operations, in the same order, with the same signs."""
    policy = policy_of(name)
    augmenter = StrongAugmenter(policy, size, CPU)
    table = decode(policy, size)
    draws = generator(7, name, size)
    images = torch.randint(0, 256, (num, channels, size, size), generator=draws).to(torch.uint8)
    group_SB, strength_SB6 = augmenter.draw(num, draws)
    plan = augmenter.arrange(group_SB, strength_SB6)
    ours = augmenter.apply(in_order(images, plan), plan)
    for sample in range(num):
        expected = images[sample]
        for step in range(policy.num_steps):
            if group_SB[step, sample] == 0:
                continue
            op, magnitude = table[(int(group_SB[step, sample]), *strength_SB6[step, sample].tolist())]
            expected = REFERENCE._apply_image_or_video_transform(
                expected, op, magnitude, InterpolationMode.NEAREST, REFERENCE._fill
            )
        difference = (ours[sample].int() - expected.int()).abs()
        # A later Equalize or Solarize can widen a level's difference of an earlier blend: rare, counted here.
        assert (difference > 1).float().mean() < 0.02, f"sample {sample}: {int(difference.max())} levels apart"


def test_sorted_and_unsorted_paths_agree() -> None:
    """Geometric operations give the same images whether or not the batch is put in order first."""
    policy = policy_of("geometric")
    augmenter = StrongAugmenter(policy, 8, CPU)
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=generator(1)).to(torch.uint8)
    drawn = augmenter.draw(50, generator(2))
    unsorted = augmenter.arrange(*drawn)
    assert unsorted.moves is None
    augmenter.skips_sorting = False
    plan = augmenter.arrange(*drawn)
    assert plan.moves is not None
    ours = augmenter.apply(in_order(images, plan), plan)
    augmenter.skips_sorting = True
    assert augmenter.apply(images.clone(), unsorted).to(torch.uint8).equal(ours)


def shares(policy: StrongPolicy, num: int = 40_000) -> tuple[Tensor, Tensor]:
    return StrongAugmenter(policy, 32, CPU).draw(num, generator(3))


def test_autoaugment_probabilities() -> None:
    """How often each operation is applied in each step, against the table: five standard deviations."""
    policy = policy_of("autoaugment")
    group_SB, _ = shares(policy)
    for step in range(2):
        for number in range(1, 11):
            name = GROUPS[number]
            moved = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
            odds = [
                row[step].probability
                for row in policy.rows
                if (row[step].op == name or (name == "affine" and row[step].op in moved))
            ]
            expected = sum(odds) / 25
            share = (group_SB[step] == number).float().mean().item()
            assert abs(share - expected) <= 5 * (expected * (1 - expected) / 40_000) ** 0.5 + 1e-9, name


def test_steps_of_a_sub_policy_belong_together() -> None:
    rows = ((Choice("Invert", 1.0, None), Choice("Equalize", 1.0, None)), (Choice("AutoContrast", 1.0, None),) * 2)
    group_SB, _ = shares(StrongPolicy(rows, 10), 1000)
    pairs = {(GROUPS[int(a)], GROUPS[int(b)]) for a, b in group_SB.T}
    assert pairs == {("Invert", "Equalize"), ("AutoContrast", "AutoContrast")}


def test_randaugment_draws_each_step_independently() -> None:
    group_SB, _ = shares(policy_of("randaugment", randaugment_ops=3))
    assert group_SB.shape == (3, 40_000)
    for step in range(3):  # 14 operations: 1 does nothing, 5 move, 8 have their own group
        for number, expected in [(0, 1 / 14), (1, 5 / 14), *((number, 1 / 14) for number in range(2, 10))]:
            share = (group_SB[step] == number).float().mean().item()
            assert abs(share - expected) < 5 * (expected * (1 - expected) / 40_000) ** 0.5
    both = ((group_SB[0] == 0) & (group_SB[1] == 0)).float().mean().item()
    assert abs(both - 1 / 196) < 5 * (1 / 196 / 40_000) ** 0.5


def test_both_signs_are_equally_frequent() -> None:
    policy = StrongPolicy(((Choice("Rotate", 1.0, 9),),), 10, draws=1)
    _, strength_SB6 = shares(policy)
    share = (strength_SB6[0, :, 3] < 0).float().mean().item()
    assert abs(share - 0.5) < 5 * 0.5 / 40_000**0.5
    assert strength_SB6[0, :, 3].abs().unique().tolist() == pytest.approx([0.5 / 16])  # the sine of 30 degrees


def test_randaugment_strength_is_the_bin() -> None:
    policy = policy_of("randaugment", randaugment_magnitude=30)
    solarize = next(row[0] for row in policy.rows if row[0].op == "Solarize")
    assert (policy.num_bins, policy.num_steps, solarize.bin, len(policy.rows)) == (31, 2, 30, 14)


def crops(image: Tensor, policy: WeakPolicy) -> dict[bytes, tuple[int, int, int]]:
    """Every possible weak view of one image (C, S, S), as bytes."""
    size, padding = image.shape[1], policy.padding
    padded = torch.zeros(image.shape[0], size + 2 * padding, size + 2 * padding, dtype=torch.uint8)
    padded[:, padding : padding + size, padding : padding + size] = image
    views = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            view = padded[:, top : top + size, left : left + size]
            views[view.contiguous().numpy().tobytes()] = (top, left, 0)
            if policy.flip:
                views[view.flip(2).contiguous().numpy().tobytes()] = (top, left, 1)
    return views


@pytest.mark.parametrize(
    "policy", [WeakPolicy(True, 4), WeakPolicy(False, 1), WeakPolicy(True, 0), WeakPolicy(False, 0)]
)
@pytest.mark.parametrize(("channels", "size"), [(3, 9), (1, 8)])
def test_weak_views_are_crops_with_uniform_positions(policy: WeakPolicy, channels: int, size: int) -> None:
    image = torch.randint(1, 256, (channels, size, size), generator=generator(5)).to(torch.uint8)
    possible = crops(image, policy)
    num = 60 * len(possible)
    cropper = Cropper(policy, size, CPU)
    views = cropper.apply(image.expand(num, -1, -1, -1), cropper.draw(num, generator(6)))
    assert views.dtype == torch.uint8
    counts = dict.fromkeys(possible, 0)
    for view in views:
        counts[view.numpy().tobytes()] += 1  # KeyError: not a crop
    freedom = len(possible) - 1
    chi_square = sum((count - 60) ** 2 / 60 for count in counts.values())
    assert chi_square <= freedom + 5 * (2 * max(freedom, 1)) ** 0.5


def test_operation_without_images_is_skipped() -> None:
    policy = StrongPolicy(((Choice("Equalize", 0.0, None), Choice("Invert", 0.0, None)),), 10)
    augmenter = StrongAugmenter(policy, 8, CPU)
    plan = augmenter.plan(5, generator(1))
    assert plan.groups == [[], []]
    images = torch.randint(0, 256, (5, 1, 8, 8)).to(torch.uint8)
    assert augmenter.apply(in_order(images, plan), plan).equal(images)
