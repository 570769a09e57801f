"""The view kernel against the operations of torch, on a GPU or, with TRITON_INTERPRET=1, by Triton's interpreter.

Not collected by itself: ``test_views.py`` runs this file in a process of its own, because the interpreter must be
chosen before the kernel is imported. Levels may differ by one where float32 sums round in another way. After a
geometric operation, rounding may take the next pixel.
"""

from dataclasses import replace

import pytest
import torch

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.augment import fused_check
from fastcpc.data.augment.batched import GROUPS, Cropper, StrongAugmenter
from fastcpc.data.augment.batched_views import BatchedViews
from fastcpc.data.augment.fused import FusedOperations, FusedViews
from fastcpc.data.augment.normalize import TensorNormaliser
from fastcpc.data.augment.policies import AUTOAUGMENT_BINS, MAGNITUDES, Choice, StrongPolicy, WeakPolicy, strong_policy
from fastcpc.data.rng import generator
from fastcpc.kernels.views import launch
from fastcpc.kernels.views.kernel import INTERPRETED
from fastcpc.kernels.views.launch import Changes, view

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
MEAN, STD = (0.49, 0.48, 0.45), (0.20, 0.19, 0.21)
WEAK = WeakPolicy(True, 2)
OPS = (*MAGNITUDES, "AutoContrast", "Equalize", "Invert", "Identity")
WHOLE = {"Posterize", "Solarize", "Invert", "Equalize", ""}  # no fractions: nothing to round


@pytest.fixture(autouse=True)
def _as_in_a_run():
    """Deterministic algorithms fill fresh memory with NaN, which shows unwritten results."""
    torch.use_deterministic_algorithms(INTERPRETED)


def makers(policy, pixels):
    """FusedViews and BatchedViews of the same images."""
    channels, size = pixels.shape[1:3]
    augmenter = StrongAugmenter(policy, size, DEVICE)
    normalise = TensorNormaliser(MEAN[:channels], STD[:channels], DEVICE)
    return [
        kind(pixels.to(DEVICE), Cropper(WEAK, size, DEVICE), augmenter, normalise)
        for kind in (FusedViews, BatchedViews)
    ]


def every_operation(style):
    """A policy with each operation: with its greatest strength, and where strengths are whole numbers with two."""
    bins = {op: ((3, 9) if op in WHOLE else (9,)) if op in MAGNITUDES else (None,) for op in OPS}
    return StrongPolicy(
        tuple((Choice(op, 1.0, level), Choice("Identity", 1.0, None)) for op in OPS for level in bins[op]),
        AUTOAUGMENT_BINS,
        style=style,
    )


@pytest.mark.parametrize(
    ("style", "channels", "size"),
    [("torchvision", 3, 1), ("torchvision", 3, 2), ("torchvision", 3, 33), ("torchvision", 1, 7),
     ("torchvision", 1, 32), ("augdmix", 1, 2), ("augdmix", 3, 7), ("augdmix", 3, 32), ("augdmix", 1, 33)],
)  # fmt: skip
def test_each_operation(style, channels, size):
    check_each_operation(style, channels, size)


@pytest.mark.parametrize(
    ("style", "channels", "size", "block"),
    [("torchvision", 3, 24, 256), ("torchvision", 1, 16, 128), ("augdmix", 3, 9, 64)],
)
def test_each_operation_on_tiles(style, channels, size, block, monkeypatch):
    """Images of several tiles, the last one whole or in part."""
    for name in ("MIN_BLOCK", "MAX_BLOCK", "TILE"):
        monkeypatch.setattr(launch, name, block)
    assert launch.constants(size, channels, 2, 2, 0, False)["TILES"] > 1
    check_each_operation(style, channels, size)


def check_each_operation(style, channels, size):
    augmenter = StrongAugmenter(every_operation(style), size, DEVICE)
    entries = torch.arange(len(augmenter.group_T))
    known = torch.cat((augmenter.group_T[:, None].float(), augmenter.strength_T6), 1).unique(
        dim=0, return_inverse=True
    )[1]
    entries = entries[[int((known == kind).nonzero()[0]) for kind in known.unique()]]  # each operation and sign once
    still = torch.full_like(entries, len(augmenter.group_T) - 1)
    first = torch.arange(len(entries)) % 2 == 0
    entry_SB = torch.stack((torch.where(first, entries, still), torch.where(first, still, entries)))
    pixels = fused_check.example_images(channels, size)
    index, drawn = torch.arange(len(entries)) * 3 % len(pixels), Cropper(WEAK, size, DEVICE)
    crops_2B = drawn.draw(len(entries), generator(size))
    changes = Changes(augmenter.group_T.int().to(DEVICE), augmenter.strength_T6.to(DEVICE), augmenter.style.fill)
    one, zero = torch.ones(channels, device=DEVICE), torch.zeros(channels, device=DEVICE)
    plan = torch.cat((crops_2B, entry_SB)).int().to(DEVICE)
    made = view(pixels.to(DEVICE), index.to(DEVICE), plan, one, zero, changes, padding=2).cpu()

    cpu = torch.device("cpu")
    plain = StrongAugmenter(augmenter.policy, size, cpu)
    arranged = plain.arrange(plain.group_T[entry_SB], plain.strength_T6[entry_SB])
    order = arranged.moves[0]
    expected = plain.apply(Cropper(WEAK, size, cpu).apply(pixels[index[order]], crops_2B[:, order]), arranged).float()
    group_B = plain.group_T[entries]
    assert set(group_B.tolist()) >= {GROUPS.index(plain.style.group(op)) for op in OPS if op != "Identity"}
    assert fused_check.wrong_operation(group_B, made, expected) == ""
    for group, ours, theirs in zip(group_B.tolist(), made, expected, strict=True):
        assert GROUPS[group] not in WHOLE or ours.equal(theirs), GROUPS[group]


@pytest.mark.parametrize("strong", ["autoaugment", "randaugment", "geometric"])
def test_views_of_a_batch_equal_those_of_torch(strong):
    """The same draws, index and order, for the whole batch and for a part."""
    pixels = torch.randint(256, (30, 3, 8, 8), generator=generator(3)).to(torch.uint8)
    fused, plain = makers(strong_policy(AugmentConfig(strong=strong)), pixels)
    whole, names = torch.randperm(30, generator=generator(4))[:9], ("weak", "strong", "test", "strong")
    for part in (None, torch.tensor([7, 0, 5])):
        index = whole if part is None else whole[part]
        (ours, made), (theirs, expected) = (
            maker.make(index, names, len(whole), part, generator(6)) for maker in (fused, plain)
        )
        assert ours.equal(theirs) and ours.dtype == torch.int64
        for name, one, other in zip(names, made, expected, strict=True):
            assert one.is_contiguous(memory_format=torch.channels_last)
            limit = 1e-5 if name != "strong" else 1.01 / (255 * min(STD))
            assert ((one - other).abs() <= limit).float().mean() > (0.98 if name == "strong" else 0.9999)


@pytest.mark.parametrize("style", ["torchvision", "augdmix"])
def test_operations_on_crops_equal_those_of_torch(style, monkeypatch):
    """The way of image files: crops are in their order, channels last, and of several tiles. Twice, of two sizes."""
    for name in ("MIN_BLOCK", "MAX_BLOCK", "TILE"):
        monkeypatch.setattr(launch, name, 64)
    augmenter = StrongAugmenter(strong_policy(AugmentConfig(style=style), images=True), 10, DEVICE)
    normalise = TensorNormaliser(MEAN, STD, DEVICE, torch.channels_last)
    fused = FusedOperations(augmenter, normalise)
    for number in (16, 5):
        crops = torch.randint(256, (number, 10, 10, 3), generator=generator(number)).to(torch.uint8).to(DEVICE)
        drawn = augmenter.draw(number, generator(7))
        made = fused.make(crops, *drawn)
        plan = augmenter.arrange(*drawn)
        plan = replace(plan, strengths=plan.strengths.to(DEVICE), moves=plan.moves.to(DEVICE))
        images = crops.permute(0, 3, 1, 2).index_select(0, plan.moves[0]).contiguous()
        expected = normalise(augmenter.apply(images, plan))
        assert made.dtype == expected.dtype and made.is_contiguous(memory_format=torch.channels_last)
        assert ((made - expected).abs() <= 1.01 / (255 * min(STD))).float().mean() > 0.98


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_layouts_and_strides(dtype, channels_last):
    given = torch.randint(256, (6, 9, 3, 9), generator=generator(1)).to(torch.uint8).to(DEVICE)
    pixels = given.permute(0, 2, 3, 1)[::2, :, :, :].transpose(2, 3)  # every second image, channels between its sides
    index = torch.tensor([2, 0, 2, 1], device=DEVICE)
    normalise = TensorNormaliser(MEAN, STD, DEVICE)
    crops = torch.tensor([[2 * 13 + 2] * 4, [0] * 4], dtype=torch.int32, device=DEVICE)
    made = view(
        pixels, index, crops, normalise.scale_C, normalise.shift_C, padding=2, dtype=dtype, channels_last=channels_last
    )
    expected = normalise(pixels[index])
    assert made.dtype == dtype and made.shape == expected.shape
    assert made.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    if INTERPRETED and dtype == torch.bfloat16:  # the interpreter cuts it off
        torch.testing.assert_close(made.float(), expected, rtol=2**-7, atol=0)
    else:
        torch.testing.assert_close(made, expected.to(dtype), rtol=0, atol=1e-6)


def test_the_check_accepts_the_kernel(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(fused_check, "NUM_IMAGES", 12)
    policy = strong_policy(AugmentConfig(style="augdmix"))
    assert fused_check.kernel_problem(3, 7, WEAK, policy, DEVICE) == ""
    assert fused_check.kernel_problem(1, 8, WEAK, None, DEVICE) == ""


def arguments():
    ones = torch.ones(3, device=DEVICE)
    pixels = torch.zeros(5, 3, 4, 4, dtype=torch.uint8, device=DEVICE)
    index, plan = torch.zeros(2, dtype=torch.int64, device=DEVICE), torch.zeros(3, 2, dtype=torch.int32, device=DEVICE)
    changes = Changes(torch.zeros(1, dtype=torch.int32, device=DEVICE), torch.zeros(1, 6, device=DEVICE))
    return {"pixels": pixels, "index": index, "plan": plan, "scale": ones, "shift": ones, "changes": changes}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [("pixels", lambda given: given.float(), "pixels: expected uint8"),
     ("pixels", lambda given: given[:0], "pixels: expected uint8"),
     ("pixels", lambda given: given[:, :2], "pixels: images are 2 x 4 x 4; it takes 1 or 3 channels"),
     ("pixels", lambda given: given.repeat(1, 1, 65, 65), "images are 3 x 260 x 260; .* up to 256 pixels"),
     ("index", lambda given: given.int(), "index: expected contiguous int64"),
     ("plan", lambda given: given.long(), r"plan: expected contiguous int32 \(2 \+ steps, 2\), got torch.int64"),
     ("plan", lambda given: given[:1], r"plan: expected"), ("plan", lambda given: given[:, :1], r"plan: expected"),
     ("plan", lambda given: given.T.contiguous().T, r"plan: expected contiguous"),
     ("scale", lambda given: given[:2], r"scale: expected contiguous float32 \(3,\), got torch.float32 \(2,\)"),
     ("shift", lambda given: given.double(), "shift: expected"), ("changes", lambda given: None, "changes: expected"),
     ("changes", lambda given: replace(given, codes=given.codes.long()), "changes.codes: expected"),
     ("changes", lambda given: replace(given, strengths=given.strengths[:, :5]), "changes.strengths: expected")],
)  # fmt: skip
def test_wrong_arguments_are_refused(name, change, message):
    given = arguments()
    with pytest.raises(ValueError, match=message):
        view(**given | {name: change(given[name])}, padding=0)


def test_other_types_are_refused_and_an_empty_batch_is_empty():
    given = arguments()
    with pytest.raises(ValueError, match=r"dtype: expected float32, float16 or bfloat16, got torch\.float64"):
        view(**given, padding=0, dtype=torch.float64)
    empty = view(**given | {"index": given["index"][:0], "plan": given["plan"][:, :0].contiguous()}, padding=0)
    assert empty.shape == (0, 3, 4, 4)
