"""Orders of samples: nothing lost, nothing seen twice in a pass, every training batch full."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcpc.data.rng import generator
from fastcpc.data.sampler import draw_pool, sequential_batches, shuffled_batches

sizes = st.integers(1, 200)


@given(st.integers(0, 300), sizes)
def test_sequential_is_every_sample_once(num: int, batch: int) -> None:
    batches = sequential_batches(num, batch)
    assert [index for part in batches for index in part.tolist()] == list(range(num))
    assert all(len(part) == batch for part in batches[:-1])
    assert all(1 <= len(part) <= batch for part in batches)


@given(sizes, sizes, st.integers(0, 5))
def test_one_pass_holds_every_sample(num: int, batch: int, seed: int) -> None:
    index = torch.arange(num) * 3 + 1
    batches, filled = shuffled_batches(index, batch, generator(seed))
    flat = torch.cat(batches)
    assert len(batches) == -(-num // batch)
    assert all(len(part) == batch for part in batches)
    assert flat[:num].sort().values.equal(index)
    assert filled == len(flat) - num
    assert set(flat.tolist()) <= set(index.tolist())


@given(sizes, sizes, st.integers(0, 30))
def test_cycling_takes_whole_passes(num: int, batch: int, num_batches: int) -> None:
    batches, filled = shuffled_batches(torch.arange(num), batch, generator(1), num_batches)
    assert len(batches) == num_batches
    assert filled == max(0, num_batches * batch - num)
    flat = [index for part in batches for index in part.tolist()]
    for first in range(0, len(flat), num):  # each pass has no sample twice
        part = flat[first : first + num]
        assert len(set(part)) == len(part)


def test_passes_are_shuffled_afresh() -> None:
    batches, _ = shuffled_batches(torch.arange(100), 100, generator(1), 2)
    assert not batches[0].equal(batches[1])
    assert not batches[0].equal(torch.arange(100))


def test_same_generator_same_batches() -> None:
    first, again = (shuffled_batches(torch.arange(50), 8, generator(4, "x"))[0] for _ in range(2))
    other = shuffled_batches(torch.arange(50), 8, generator(5, "x"))[0]
    assert torch.stack(first).equal(torch.stack(again))
    assert not torch.stack(first).equal(torch.stack(other))


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 80), st.booleans(), st.integers(0, 3))
def test_a_pool_is_drawn_without_replacement(labels: list[int], num: int, balanced: bool, seed: int) -> None:
    labels_N = torch.tensor(labels, dtype=torch.int64)
    rows = draw_pool(labels_N, num, generator(seed), balanced=balanced)
    assert rows.tolist() == sorted(set(rows.tolist())) and set(rows.tolist()) <= set(range(len(labels)))
    assert rows.equal(draw_pool(labels_N, num, generator(seed), balanced=balanced))
    counts_K = torch.bincount(labels_N, minlength=5)
    if not balanced:
        assert len(rows) == min(num, len(labels))
        return
    share = -(-num // max(1, int((counts_K > 0).sum())))
    assert len(rows) == min(num, int(counts_K.clamp_max(share).sum()))
    assert bool((torch.bincount(labels_N[rows], minlength=5) <= counts_K.clamp_max(share)).all())


def test_a_balanced_pool_takes_each_sample_of_a_class_equally_often() -> None:
    labels_N = torch.tensor([0] * 30 + [1] * 6 + [3] * 2)
    drawn_N = torch.zeros(38)
    for seed in range(300):
        drawn_N[draw_pool(labels_N, 15, generator(seed), balanced=True)] += 1
    assert drawn_N.sum() == 300 * 12  # 5 of class 0, 5 of class 1, both of class 3
    assert bool((drawn_N[36:] == 300).all())
    assert drawn_N[:30].min() >= 20 and drawn_N[:30].max() <= 85 and drawn_N[30:36].min() >= 210


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"index must be a vector with at least one entry, got shape \(0,\)"):
        shuffled_batches(torch.arange(0), 4, generator(1))
    with pytest.raises(ValueError, match="batch_size must be 1 or more and num_batches 0 or more, got 0 and None"):
        shuffled_batches(torch.arange(4), 0, generator(1))
    with pytest.raises(ValueError, match="got 2 and -1"):
        shuffled_batches(torch.arange(4), 2, generator(1), -1)
    with pytest.raises(ValueError, match="num must be 1 or more, got 0"):
        draw_pool(torch.arange(3), 0, generator(1), balanced=True)
    with pytest.raises(ValueError, match="num_samples must be 0 or more and batch_size 1 or more, got -1 and 2"):
        sequential_batches(-1, 2)
