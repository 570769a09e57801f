"""Out-of-fold heads: no head sees its fold, heads together equal heads one by one, and rows are read in pieces."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastcpc.auditing.heads import Heads, HeadSettings, draw_folds, train_heads
from fastcpc.auditing.rows import EmbeddingRows

SETTINGS = HeadSettings(min_steps=30, batch_size=32)
NUM, DIM, CLASSES = 100, 6, 3


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(seed)
    values_ND = torch.randn(NUM, DIM, generator=gen)
    return values_ND, torch.randint(0, CLASSES, (NUM,), generator=gen)


def one_hot(labels_N: torch.Tensor) -> torch.Tensor:
    return F.one_hot(labels_N, CLASSES).float()


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_a_label_does_not_change_its_own_probabilities(mixup: float) -> None:
    values_ND, labels_N = problem()
    settings = replace(SETTINGS, mixup_alpha=mixup)
    fold_NR = draw_folds(labels_N, settings, 0)
    changed_N = labels_N.clone()
    changed_N[17] = (labels_N[17] + 1) % CLASSES
    before, after = [
        train_heads(lambda index: values_ND[index], one_hot(given_N), fold_NR, settings, 0).out_of_fold(
            lambda index: values_ND[index]
        )
        for given_N in (labels_N, changed_N)
    ]
    torch.testing.assert_close(before[17], after[17], rtol=0, atol=1e-6)
    assert (before - after).abs().amax() > 1e-4  # it does change those of other samples


def test_heads_together_equal_heads_one_by_one() -> None:
    """Plain autograd and Adam, one head at a time, on the samples outside its fold; without MixUp, with L2."""
    values_ND, labels_N = problem()
    settings = replace(SETTINGS, l2=0.05, batch_size=NUM, repeats=1)
    fold_NR = draw_folds(labels_N, settings, 0)
    heads = train_heads(lambda index: values_ND[index], one_hot(labels_N), fold_NR, settings, 0)
    for number in range(settings.folds):
        seen_N = fold_NR[:, 0] != number
        layer = torch.nn.Linear(DIM, CLASSES)
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.Adam(layer.parameters(), settings.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.min_steps)
        for _ in range(settings.min_steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(layer(values_ND[seen_N]), labels_N[seen_N])
            (loss + settings.l2 / 2 * layer.weight.square().sum()).backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(heads.weight_DHK[:, number], layer.weight.T, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(heads.bias_HK[number], layer.bias, rtol=1e-3, atol=1e-5)


def test_out_of_fold_is_the_mean_of_the_heads_that_did_not_see_a_sample() -> None:
    values_ND, labels_N = problem()
    fold_NR = draw_folds(labels_N, SETTINGS, 0)
    heads = train_heads(lambda index: values_ND[index], one_hot(labels_N), fold_NR, SETTINGS, 0)
    prob_NK = heads.out_of_fold(lambda index: values_ND[index])
    for row in (0, 31, 99):
        parts = []
        for repeat in range(SETTINGS.repeats):
            head = repeat * SETTINGS.folds + int(fold_NR[row, repeat])
            logits_K = values_ND[row].double() @ heads.weight_DHK[:, head].double() + heads.bias_HK[head].double()
            parts.append(logits_K.softmax(0))
        torch.testing.assert_close(prob_NK[row].double(), (parts[0] + parts[1]) / 2, rtol=0, atol=1e-6)


def test_heads_train_further_from_earlier_ones_and_leave_them_as_they_are() -> None:
    values_ND, labels_N = problem()

    def rows(index: torch.Tensor) -> torch.Tensor:
        return values_ND[index]

    fold_NR, target_NK = draw_folds(labels_N, SETTINGS, 0), one_hot(labels_N)
    first = train_heads(rows, target_NK, fold_NR, SETTINGS, 0)
    weight_DHK, bias_HK = first.weight_DHK.clone(), first.bias_HK.clone()
    still = train_heads(rows, target_NK, fold_NR, replace(SETTINGS, lr=0.0), 1, first)
    assert still.weight_DHK.equal(weight_DHK) and still.bias_HK.equal(bias_HK)
    further = train_heads(rows, target_NK, fold_NR, SETTINGS, 1, first)
    assert first.weight_DHK.equal(weight_DHK) and first.bias_HK.equal(bias_HK)
    alone = train_heads(rows, target_NK, fold_NR, SETTINGS, 1)
    assert _loss(further, values_ND, labels_N) < _loss(alone, values_ND, labels_N), "twice as many steps"


def _loss(heads: Heads, values_ND: torch.Tensor, labels_N: torch.Tensor) -> float:
    return float(F.nll_loss(heads.predict_proba(values_ND).log(), labels_N))


def test_folds_are_balanced_per_label() -> None:
    labels_N = torch.arange(100) % 4
    fold_NR = draw_folds(labels_N, SETTINGS, 1)
    assert fold_NR.shape == (100, 2) and (fold_NR[:, 0] != fold_NR[:, 1]).any()
    for label in range(4):
        assert fold_NR[labels_N == label, 0].bincount().tolist() == [5] * 5


def test_number_of_steps_is_bounded() -> None:
    values_ND, labels_N = problem()
    calls = []

    def rows(index: torch.Tensor) -> torch.Tensor:
        calls.append(len(index))
        return values_ND[index]

    settings = replace(SETTINGS, max_steps=7)
    train_heads(rows, one_hot(labels_N), draw_folds(labels_N, settings, 0), settings, 0)
    assert calls == [1, *[32] * 7]


def test_a_memory_map_is_not_copied(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(3, 2, (20_000, 64)).astype(np.float16)
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    rows = EmbeddingRows(mapped[:4096], held_bytes=0)
    batch_BD = rows(torch.arange(512))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 4096 * 64 * 4
    assert rows.held_ND is None
    held = EmbeddingRows(mapped[:4096])
    torch.testing.assert_close(held(torch.arange(512)), batch_BD, rtol=0, atol=0)
    all_ND = held(torch.arange(4096))
    torch.testing.assert_close(all_ND.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(all_ND.std(0), torch.ones(64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", "<f8"])
def test_rows_are_those_of_float32(dtype: str) -> None:
    values = np.random.default_rng(0).normal(3, 2, (50, 7)).astype(dtype)
    expected = EmbeddingRows(values.astype(np.float32))
    for held_bytes in (0, 10**6):
        found = EmbeddingRows(values, held_bytes=held_bytes)
        assert found(torch.arange(50)).equal(expected(torch.arange(50)))


def test_float64_beyond_float32_is_an_error_with_its_row() -> None:
    values = np.random.default_rng(0).normal(size=(50, 7))
    values[13, 2] = 1e300
    with pytest.raises(ValueError, match="row 13"):
        EmbeddingRows(values)
