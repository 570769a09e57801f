"""Makes the given labels of a run, with or without noise, and keeps the trusted labels."""

import difflib
from dataclasses import dataclass, replace

import numpy as np
import torch

from fastcpc.config.constraints import did_you_mean
from fastcpc.config.schema import NoiseConfig
from fastcpc.data.corrections.decisions import Correction
from fastcpc.data.dataset import ArraySplit, Dataset, LeftOutBecause
from fastcpc.data.labels.label_file import read_label_file
from fastcpc.data.rng import generator
from fastcpc.errors import InputError

# truck->automobile, bird->airplane, cat->dog, deer->horse, dog->cat (DivideMix); the same numbers are used on digits.
ASYM_TEN = {9: 1, 2: 0, 3: 5, 4: 7, 5: 3}
BLOCK = 5


@dataclass(frozen=True)
class Labels:
    """The labels of a training set, in its order.

    given: int64 (N,), the labels to train on. trusted: int64 (N,), for metrics only; None unless every sample has one.
    nominal_rate: the share of samples that were drawn; 0 for a label file. actual_rate: the share whose given label
    differs from the trusted one, of those that have one, or None. seed: the seed of the noise. partly: int64 (N,)
    where only some samples have a trusted label, -1 for the others; else None. On Clothing1M, some images have both.
    confirmed: bool (N,), whether a reviewer confirmed the given label; None without data.corrections. corrections: the
    decisions of data.corrections, also those on other samples.
    """

    given: np.ndarray
    trusted: np.ndarray | None
    kind: str
    nominal_rate: float
    actual_rate: float | None
    seed: int
    partly: np.ndarray | None = None
    confirmed: np.ndarray | None = None
    corrections: tuple[Correction, ...] = ()

    @property
    def known(self) -> np.ndarray | None:
        """Trusted labels, -1 where a sample has none; None where no sample has one. For metrics only."""
        return self.partly if self.trusted is None else self.trusted


def make_labels(dataset: Dataset, noise: NoiseConfig, run_seed: int) -> Labels:
    """The labels to train on, over the whole training set in its official order.

    dataset: its training labels are the trusted ones. Image files already have noise, so there this holds only where
    noise.kind is not none. run_seed: seeds the noise where noise.seed is -1.
    Raises InputError for a kind of noise that the data set does not have, and for an unusable label file.
    """
    seed = run_seed if noise.seed < 0 else noise.seed
    if noise.kind == "none":
        given, rate = dataset.train.labels.copy(), 0.0
        known = dataset.train.labels if isinstance(dataset.train, ArraySplit) else dataset.train.trusted
    else:
        if not isinstance(dataset.train, ArraySplit) and dataset.train.trusted is not None:
            raise InputError(
                f"noise.kind={noise.kind}: {dataset.name} has given and trusted labels already; use noise.kind=none"
            )
        known = dataset.train.labels
        if noise.kind == "file":
            given, rate = read_label_file(noise.file, noise.key, dataset), 0.0
        else:
            given, rate = _inject(dataset, noise, seed), noise.rate
    return _with_trusted(Labels(given, None, noise.kind, rate, None, seed), known)


def take_subset(dataset: Dataset, labels: Labels, subset: int, run_seed: int) -> tuple[Dataset, Labels]:
    """Keep the first ``subset`` training samples of a seeded shuffle, in the official order; 0 keeps all.

    Broken images are removed before the shuffle, but after the noise, because label files include them. Test sets do
    not change. The actual noise rate is that of the remaining samples. Raises InputError where subset is negative or
    exceeds the training set.
    """
    if dataset.broken:
        whole = np.setdiff1d(np.arange(len(dataset.train)), np.array(dataset.broken, np.int64))
        dataset, labels = keep_samples(replace(dataset, broken=()), labels, whole, why="broken")
    num_samples = len(dataset.train)
    if not 0 <= subset <= num_samples:
        raise InputError(
            f"data.subset={subset}: must be in 0..{num_samples}, the size of {dataset.name}'s training set"
        )
    if subset == 0:
        return dataset, labels
    order = torch.randperm(num_samples, generator=generator(run_seed, "subset")).numpy()
    return keep_samples(dataset, labels, np.sort(order[:subset]), why="subset")


def keep_samples(dataset: Dataset, labels: Labels, rows: np.ndarray, *, why: LeftOutBecause) -> tuple[Dataset, Labels]:
    """Training samples at these rows, with their labels. why: the others are left out."""
    known = None if labels.known is None else labels.known[rows]
    confirmed = None if labels.confirmed is None else labels.confirmed[rows]
    kept = _with_trusted(replace(labels, given=labels.given[rows], confirmed=confirmed), known)
    others = np.setdiff1d(np.arange(len(dataset.train)), rows)
    left_out = dataset.left_out.with_more(dataset.train, labels.given, others, why=why)
    return replace(dataset, train=dataset.train.take(rows), left_out=left_out), kept


def _with_trusted(labels: Labels, known: np.ndarray | None) -> Labels:
    """Add trusted labels (-1 where unknown) and the rate of wrong given labels among the known ones."""
    has = np.zeros(0, bool) if known is None else known >= 0
    if known is None or not has.any():
        return replace(labels, trusted=None, partly=None, actual_rate=None)
    rate = float((labels.given != known)[has].mean())
    whole = bool(has.all())
    return replace(labels, trusted=known if whole else None, partly=None if whole else known, actual_rate=rate)


def _inject(dataset: Dataset, noise: NoiseConfig, seed: int) -> np.ndarray:
    """Draw int(rate * N) samples without replacement and relabel them."""
    given = dataset.train.labels.copy()
    draws = generator(seed, "noise")
    drawn = torch.randperm(len(given), generator=draws)[: int(noise.rate * len(given))].numpy()
    if noise.kind == "sym":
        given[drawn] = torch.randint(dataset.num_classes, (len(drawn),), generator=draws).numpy()
    else:
        successors_K = _pairs(dataset, noise.pairs) if noise.kind == "asym_pairs" else _successors(dataset, noise.kind)
        given[drawn] = successors_K[given[drawn]]
    return given


def _successors(dataset: Dataset, kind: str) -> np.ndarray:
    """The class that replaces each class: int64 (K,)."""
    num_classes = dataset.num_classes
    successors = np.arange(num_classes)
    if kind == "asym":
        if num_classes != 10:
            raise InputError(
                f"noise.kind=asym has two meanings on {dataset.name}: choose asym_superclass (next class of the true"
                " superclass) or asym_block5 (next class of blocks 0-4, 5-9, ...)"
            )
        successors[list(ASYM_TEN)] = list(ASYM_TEN.values())
    elif kind == "asym_next":
        successors = np.roll(successors, -1)
    elif kind == "asym_superclass":
        if not dataset.superclass_of:
            raise InputError(f"noise.kind=asym_superclass: {dataset.name} has no superclasses; use asym")
        for superclass in set(dataset.superclass_of):
            members = np.flatnonzero(np.array(dataset.superclass_of) == superclass)
            successors[members] = np.roll(members, -1)
    else:
        if not dataset.superclass_of or num_classes % BLOCK:
            raise InputError(f"noise.kind=asym_block5 is defined for CIFAR-100, not for {dataset.name}; use asym")
        block, place = np.divmod(successors, BLOCK)
        successors = block * BLOCK + (place + 1) % BLOCK
    return successors


def _pairs(dataset: Dataset, text: str) -> np.ndarray:
    """As ``_successors``, from 'class -> class, class -> class'. InputError on an unknown class."""
    number_of = {name: number for number, name in enumerate(dataset.class_names)}
    successors, seen = np.arange(dataset.num_classes), set()
    for pair in text.split(","):
        names = [name.strip() for name in pair.split("->")]
        if len(names) != 2:
            raise InputError(
                f"noise.pairs: {pair.strip()!r} is no pair; write 'class -> class', with commas between pairs"
            )
        for name in names:
            if name not in number_of:
                near = did_you_mean(difflib.get_close_matches(name, number_of, n=1))
                raise InputError(f"noise.pairs: {dataset.name} has no class {name!r}{near}")
        source, target = names
        if source == target or source in seen:
            why = "given twice" if source in seen else "mistaken for itself"
            raise InputError(f"noise.pairs: {source} is {why}; each class may be mistaken for one other")
        seen.add(source)
        successors[number_of[source]] = number_of[target]
    return successors
