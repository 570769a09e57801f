"""The feed from memory: normalised values, determinism, resuming in the middle, independence of views."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from fastcpc.config.schema import AugmentConfig, DataConfig
from fastcpc.data.augment.policies import WeakPolicy, strong_policy
from fastcpc.data.dataset import Dataset
from fastcpc.data.loaders.base import Batch
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.loaders.memory import MemoryLoader
from fastcpc.data.registry import load_dataset
from fastcpc.data.rng import generator
from fastcpc.data.sampler import sequential_batches, shuffled_batches

CPU = torch.device("cpu")
VIEWS: Any = ["test", "weak", "weak", "strong", "strong"]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def loader_of(num: int = 40, size: int = 12, strong: Any = "autoaugment") -> MemoryLoader:
    pixels = torch.randint(1, 256, (num, 3, size, size), generator=generator(9)).to(torch.uint8)
    return MemoryLoader(pixels, MEAN, STD, WeakPolicy(True, 2), strong_policy(AugmentConfig(strong=strong)), CPU)


def batches_of(num: int, seed: int = 1) -> list[torch.Tensor]:
    return shuffled_batches(torch.arange(num), 8, generator(seed))[0]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.index.equal(b.index) and all(x.equal(y) for x, y in zip(a.views, b.views, strict=True))
        for a, b in zip(first, second, strict=True)
    )


def test_test_view_by_value() -> None:
    loader = loader_of()
    index = torch.tensor([7, 3, 3])
    (batch,) = loader.stream([index], ["test"], seed=1)
    expected = (loader.pixels[index].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    assert batch.index.equal(index)
    assert len(batch.views) == 1
    assert batch.views[0].dtype == torch.float32
    assert batch.views[0].is_contiguous()
    assert (batch.views[0].double() - expected).abs().max() < 1e-6


@pytest.mark.parametrize("strong", ["autoaugment", "randaugment", "geometric"])
@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_a_later_start_is_the_tail_of_the_stream(strong: str, start: int) -> None:
    loader, batches = loader_of(strong=strong), batches_of(40)
    whole = list(loader.stream(batches, VIEWS, seed=11))
    tail = list(loader.stream(batches, VIEWS, seed=11, start=start))
    assert len(whole) == 5
    assert same(whole[start:], tail)


@pytest.mark.parametrize("strong", ["autoaugment", "randaugment", "geometric"])
def test_part_equals_those_positions_of_whole_batches(strong: str) -> None:
    loader, part = loader_of(strong=strong), torch.tensor([5, 0, 2])
    whole = list(loader.stream(batches_of(40), VIEWS, 3))
    expected = [Batch(batch.index[part], tuple(view[part] for view in batch.views)) for batch in whole]
    assert same(list(loader.stream(batches_of(40), VIEWS, 3, part=part)), expected)


def test_views_depend_on_seed_and_batch_number() -> None:
    loader, batches = loader_of(), [torch.arange(8)] * 2
    first, again, other = (list(loader.stream(batches, ["weak"], seed=seed)) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
    assert not first[0].views[0].equal(first[1].views[0])  # same images, another position


def test_views_of_a_batch_are_independent() -> None:
    (batch,) = loader_of().stream([torch.arange(8)], VIEWS, seed=1)
    assert len(batch.views) == 5
    for i in range(5):
        for j in range(i):
            assert not batch.views[i].equal(batch.views[j])


@pytest.mark.parametrize("name", ["autoaugment", "randaugment", "geometric"])
def test_a_batch_keeps_its_order(name: Any) -> None:
    """Each image is of one value all over, which geometry and zero strength leave recognisable."""
    pixels = torch.arange(100, 200, dtype=torch.uint8).view(100, 1, 1, 1).expand(100, 1, 8, 8).contiguous()
    strong = strong_policy(AugmentConfig(strong=name, randaugment_magnitude=0))
    harmless = {"Rotate", "TranslateX", "TranslateY", "ShearX", "ShearY", "Color", "Identity"}
    rows = tuple(row for row in strong.rows if {choice.op for choice in row} <= harmless)
    assert len(rows) >= 4
    loader = MemoryLoader(pixels, (0.0,), (1 / 255,), WeakPolicy(False, 0), replace(strong, rows=rows), CPU)
    order = torch.randperm(100, generator=generator(2))
    (batch,) = loader.stream([order], ["strong"], seed=4)
    assert batch.views[0].amax(dim=(1, 2, 3)).round().to(torch.int64).equal(order + 100)


def test_strong_views_start_from_weak_ones() -> None:
    """With operations that do nothing a strong view is a crop like any weak one: its black border shows."""
    still = replace(strong_policy(AugmentConfig(strong="geometric")), rows=((feed_identity(),),))
    pixels = torch.full((500, 1, 6, 6), 255, dtype=torch.uint8)
    loader = MemoryLoader(pixels, (0.0,), (1.0,), WeakPolicy(True, 2), still, CPU)
    (batch,) = loader.stream([torch.arange(500)], ["strong"], seed=1)
    width = (batch.views[0][:, 0].amax(1) > 0).sum(1)  # columns that are not padding
    assert width.unique().tolist() == [4, 5, 6]
    assert abs((width == 6).float().mean().item() - 0.2) < 0.08


def feed_identity() -> Any:
    from fastcpc.data.augment.policies import Choice

    return Choice("Identity", 1.0, None)


@pytest.mark.parametrize("strong", ["autoaugment", "geometric"])
@pytest.mark.parametrize(("size", "num"), [(8, 1), (5, 7), (1, 3), (2, 3)])
def test_odd_batch_sizes_and_image_sides(strong: Any, size: int, num: int) -> None:
    loader = loader_of(num=9, size=size, strong=strong)
    for batch in loader.stream([torch.randint(9, (num,))] * 20, ["weak", "strong"], seed=1):
        assert all(view.shape == (num, 3, size, size) and view.isfinite().all() for view in batch.views)


def test_pixels_are_never_written_to() -> None:
    loader = loader_of()
    before = loader.pixels.clone()
    for name in ("autoaugment", "randaugment", "geometric"):
        loader = MemoryLoader(
            loader.pixels, MEAN, STD, WeakPolicy(False, 0), strong_policy(AugmentConfig(strong=name)), CPU
        )
        list(loader.stream(batches_of(40), ["test", "weak", "strong"], seed=1))
    assert loader.pixels.equal(before)


def test_global_random_state_is_left_alone() -> None:
    loader = loader_of()
    before = torch.get_rng_state()
    list(loader.stream(batches_of(40), VIEWS, seed=1))
    assert torch.get_rng_state().equal(before)


def test_autocast_does_not_blur_the_geometry() -> None:
    loader, batches = loader_of(size=32, strong="geometric"), batches_of(40)
    plain = list(loader.stream(batches, ["strong"], seed=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert same(plain, list(loader.stream(batches, ["strong"], seed=1)))


def test_wrong_requests_raise_value_error() -> None:
    loader = loader_of()
    index = [torch.arange(4)]
    odd: Any = ["sideways"]
    with pytest.raises(ValueError, match="this loader has no 'sideways' view"):
        loader.stream(index, odd, seed=1)
    weak_only = MemoryLoader(loader.pixels, MEAN, STD, WeakPolicy(True, 2), None, CPU)
    with pytest.raises(ValueError, match="this loader has no 'strong' view"):
        weak_only.stream(index, ["strong"], seed=1)
    with pytest.raises(ValueError, match=r"sample 40 is outside 0..39"):
        loader.stream([torch.tensor([1]), torch.tensor([40])], ["test"], seed=1)
    with pytest.raises(ValueError, match=r"sample -1 is outside 0..39"):
        loader.stream([torch.tensor([-1, 3])], ["test"], seed=1)
    with pytest.raises(ValueError, match=r"batch 1 must be a filled int64 vector, got torch.int64 \(0,\)"):
        loader.stream([torch.tensor([1]), torch.arange(0)], ["test"], seed=1)
    with pytest.raises(ValueError, match=r"start must be in 0..1, got 2"):
        loader.stream(index, ["test"], seed=1, start=2)
    with pytest.raises(ValueError, match=r"pixels must be uint8 \(N, C, S, S\), got torch.uint8 \(2, 3, 4, 5\)"):
        MemoryLoader(torch.zeros(2, 3, 4, 5, dtype=torch.uint8), MEAN, STD, WeakPolicy(True, 2), None, CPU)
    with pytest.raises(ValueError, match="mean and std must hold 3 numbers, std above 0"):
        MemoryLoader(loader.pixels, (0.5,), (0.5,), WeakPolicy(True, 2), None, CPU)
    assert list(loader.stream([], ["test"], seed=1)) == []


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataConfig(name="digits"))


def test_loader_of_a_split(digits: Dataset) -> None:
    augment = AugmentConfig(strong="geometric")
    loader = make_loader(digits.tests["test"], digits, DataConfig(), augment, CPU)
    assert loader.num_samples == 360
    views = torch.cat([batch.views[0] for batch in loader.stream(sequential_batches(360, 100), ["test"], seed=1)])
    expected = (digits.tests["test"].pixels.double() / 255 - digits.mean[0]) / digits.std[0]
    assert (views.double() - expected).abs().max() < 1e-6


@pytest.mark.gpu
def test_gpu_is_never_waited_for() -> None:
    """No value is asked of the device, and the views are those of the CPU up to a level in a blend."""
    cpu = loader_of(size=32)
    cuda = torch.device("cuda")
    loader = MemoryLoader(cpu.pixels, MEAN, STD, WeakPolicy(True, 2), strong_policy(AugmentConfig()), cuda)
    list(loader.stream(batches_of(40), VIEWS, seed=1))  # memory is allocated on first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        served = list(loader.stream(batches_of(40), VIEWS, seed=1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, expected in zip(served, cpu.stream(batches_of(40), VIEWS, seed=1), strict=True):
        for view, reference in zip(ours.views, expected.views, strict=True):
            assert ((view.cpu() - reference).abs() < 0.03).float().mean() > 0.98
