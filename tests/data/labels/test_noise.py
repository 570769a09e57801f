"""Label noise by value: who is drawn, what the labels become, the rates that are reported, subsets."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastcpc.config.schema import DataConfig, NoiseConfig
from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.noise import Labels, make_labels, take_subset
from fastcpc.data.registry import load_dataset
from fastcpc.errors import InputError

Make = Callable[..., Dataset]


@pytest.fixture
def ten(dataset_of: Make) -> Dataset:
    """20,000 samples of ten classes."""
    return dataset_of(np.random.default_rng(0).integers(0, 10, 20_000))


@pytest.fixture
def hundred(dataset_of: Make) -> Dataset:
    """10,000 samples of 100 classes in 20 superclasses, class k in superclass (7 * k) % 20."""
    data = dataset_of(np.arange(10_000) % 100, num_classes=100, name="cifar100")
    return replace(data, superclass_of=tuple(7 * k % 20 for k in range(100)))


def rate(labels: Labels) -> float:
    assert labels.trusted is not None
    return float((labels.given != labels.trusted).mean())


def test_none_leaves_labels_alone(ten: Dataset) -> None:
    labels = make_labels(ten, NoiseConfig(rate=0.5), run_seed=3)
    assert (labels.given == ten.train.labels).all()
    assert labels.given is not ten.train.labels
    assert (labels.kind, labels.nominal_rate, labels.actual_rate, labels.seed) == ("none", 0.0, 0.0, 3)


@pytest.mark.parametrize("nominal", [0.2, 0.5, 0.8, 0.9])
def test_sym_may_draw_the_true_label(ten: Dataset, nominal: float) -> None:
    labels = make_labels(ten, NoiseConfig(kind="sym", rate=nominal), run_seed=1)
    assert labels.actual_rate == rate(labels)
    assert labels.nominal_rate == nominal
    # r (K-1) / K of the labels are wrong, within four standard deviations.
    assert abs(rate(labels) - nominal * 0.9) < 4 * np.sqrt(nominal * 0.09 / 20_000)


def test_sym_relabels_uniformly(ten: Dataset) -> None:
    labels = make_labels(ten, NoiseConfig(kind="sym", rate=1.0), run_seed=1)
    table = np.zeros((10, 10))
    np.add.at(table, (ten.train.labels, labels.given), 1)
    expected = table.sum(axis=1, keepdims=True) / 10
    assert ((table - expected) ** 2 / expected).sum() < 140  # chi-square, 90 degrees of freedom: p of 0.0006


@pytest.mark.parametrize(("nominal", "num"), [(0.3, 30), (0.29, 28), (0.005, 0), (1.0, 100)])
def test_number_of_drawn_samples_is_rounded_down(dataset_of: Make, nominal: float, num: int) -> None:
    """int(r * N) as the peers compute it, 0.29 * 100 below 29. Class 9 turns into 1, so each sample drawn shows."""
    labels = make_labels(dataset_of(np.full(100, 9)), NoiseConfig(kind="asym", rate=nominal), run_seed=1)
    assert Counter(labels.given.tolist()) == Counter({1: num, 9: 100 - num})


def test_asym_map(dataset_of: Make) -> None:
    labels = make_labels(dataset_of(np.arange(10)), NoiseConfig(kind="asym", rate=1.0), run_seed=1)
    # airplane automobile bird->airplane cat->dog deer->horse dog->cat frog horse ship truck->automobile
    assert labels.given.tolist() == [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]


def test_asym_draws_from_all_classes(ten: Dataset) -> None:
    labels = make_labels(ten, NoiseConfig(kind="asym", rate=0.4), run_seed=1)
    assert labels.actual_rate is not None
    assert abs(labels.actual_rate - 0.2) < 0.01


def test_asym_superclass_is_the_next_class_of_the_superclass(hundred: Dataset) -> None:
    labels = make_labels(hundred, NoiseConfig(kind="asym_superclass", rate=1.0), run_seed=1)
    # Superclass 0 holds 0, 20, 40, 60, 80; superclass 1 holds 3, 23, 43, 63, 83.
    assert [labels.given[k] for k in (0, 20, 80, 3, 83)] == [20, 40, 0, 23, 3]
    assert labels.actual_rate == 1.0


def test_asym_block5_is_the_next_class_of_five(hundred: Dataset) -> None:
    labels = make_labels(hundred, NoiseConfig(kind="asym_block5", rate=1.0), run_seed=1)
    assert labels.given[:12].tolist() == [1, 2, 3, 4, 0, 6, 7, 8, 9, 5, 11, 12]


def pairs(text: str, rate: float = 1.0) -> NoiseConfig:
    return NoiseConfig(kind="asym_pairs", rate=rate, pairs=text)


def test_asym_pairs_takes_the_named_classes_and_no_others(dataset_of: Make) -> None:
    data = replace(dataset_of(np.arange(4), num_classes=4), class_names=("skirt", "hat", "t-shirt", "long coat"))
    # in a chain each label moves by one pair, not along the chain; names are not split at blanks and hyphens
    labels = make_labels(data, pairs(" skirt->hat , hat -> t-shirt,long coat -> hat"), run_seed=1)
    assert labels.given.tolist() == [1, 2, 2, 1]
    assert labels.actual_rate == 0.75


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skirt, hat", "noise.pairs: 'skirt' is no pair; write 'class -> class', with commas between pairs"),
        ("skirt -> hat,", "noise.pairs: '' is no pair"),
        ("skirt -> hat -> dress", "noise.pairs: 'skirt -> hat -> dress' is no pair"),
        ("skirt -> hats", "has no class 'hats' (did you mean hat?)"),
        ("skirt -> hat, skirt -> dress", "noise.pairs: skirt is given twice; each class may be mistaken for one other"),
        ("hat -> hat", "noise.pairs: hat is mistaken for itself; each class may be mistaken for one other"),
    ],
)
def test_wrong_pairs_of_classes_are_an_error(dataset_of: Make, text: str, message: str) -> None:
    data = replace(dataset_of(np.arange(3), num_classes=3), class_names=("skirt", "hat", "dress"))
    with pytest.raises(InputError) as caught:
        make_labels(data, pairs(text), run_seed=1)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["sym", "asym_superclass", "asym_block5"])
def test_same_seed_same_labels(hundred: Dataset, kind: str) -> None:
    first = make_labels(hundred, NoiseConfig(kind=kind, rate=0.4), run_seed=5)  # type: ignore[arg-type]
    again = make_labels(hundred, NoiseConfig(kind=kind, rate=0.4, seed=5), run_seed=8)  # type: ignore[arg-type]
    other = make_labels(hundred, NoiseConfig(kind=kind, rate=0.4), run_seed=6)  # type: ignore[arg-type]
    assert (first.given == again.given).all()
    assert first.seed == again.seed == 5
    assert (first.given != other.given).any()


def test_labels_of_a_fixed_seed_do_not_change() -> None:
    """A run of last year must be repeatable: the drawn labels of digits are part of the contract."""
    labels = make_labels(load_dataset(DataConfig(name="digits")), NoiseConfig(kind="sym", rate=0.5), run_seed=1)
    assert labels.given[:20].tolist() == [0, 1, 2, 6, 4, 5, 5, 7, 6, 0, 5, 5, 3, 2, 4, 8, 8, 4, 5, 5]


def test_file(ten: Dataset, tmp_path: Path) -> None:
    given = (ten.train.labels + 1) % 10
    np.save(tmp_path / "a.npy", given)
    labels = make_labels(ten, NoiseConfig(kind="file", file=str(tmp_path / "a.npy")), run_seed=1)
    assert (labels.given == given).all()
    assert labels.actual_rate == 1.0
    assert labels.nominal_rate == 0.0


@pytest.mark.parametrize(
    ("kind", "classes", "message"),
    [
        ("asym", 100, "noise.kind=asym has two meanings on made up: choose asym_superclass .* or asym_block5"),
        ("asym_superclass", 10, "noise.kind=asym_superclass: made up has no superclasses; use asym"),
        ("asym_block5", 10, "noise.kind=asym_block5 is defined for CIFAR-100, not for made up; use asym"),
    ],
)
def test_noise_kind_unknown_to_the_data_set_fails(dataset_of: Make, kind: str, classes: int, message: str) -> None:
    data = dataset_of(np.arange(classes), num_classes=classes)
    with pytest.raises(InputError, match=message):
        make_labels(data, NoiseConfig(kind=kind, rate=0.4), run_seed=1)  # type: ignore[arg-type]


def test_subset_keeps_the_official_order(ten: Dataset) -> None:
    labels = make_labels(ten, NoiseConfig(kind="sym", rate=0.5), run_seed=1)
    part, kept = take_subset(ten, labels, 500, run_seed=1)
    rows = part.train.source_index // 2
    assert len(part.train) == len(rows) == 500
    assert (np.diff(rows) > 0).all()
    assert (kept.given == labels.given[rows]).all()
    assert (part.train.labels == ten.train.labels[rows]).all()
    assert (part.train.pixels == ten.train.pixels[rows]).all()
    assert part.train.names[7] == f"train/{2 * rows[7]:05d}"
    assert kept.actual_rate == rate(kept) != labels.actual_rate
    assert part.tests is ten.tests


def test_subsets_grow(ten: Dataset) -> None:
    """The first N of one shuffle: a larger subset holds the smaller one; another seed gives another."""
    labels = make_labels(ten, NoiseConfig(), run_seed=1)
    small, large = (set(take_subset(ten, labels, n, 1)[0].train.source_index.tolist()) for n in (300, 900))
    other = set(take_subset(ten, labels, 300, 2)[0].train.source_index.tolist())
    assert small < large
    assert other != small


def test_subset_zero_takes_all_images(ten: Dataset) -> None:
    labels = make_labels(ten, NoiseConfig(), run_seed=1)
    assert take_subset(ten, labels, 0, 1) == (ten, labels)


@pytest.mark.parametrize("subset", [-1, 20_001])
def test_impossible_subsets(ten: Dataset, subset: int) -> None:
    with pytest.raises(
        InputError, match=rf"data.subset={subset}: must be in 0..20000, the size of made up's training set"
    ):
        take_subset(ten, make_labels(ten, NoiseConfig(), 1), subset, 1)
