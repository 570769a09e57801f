"""Applies decisions to a data set: corrected labels, samples that count as clean, and samples that are left out."""

import logging
from dataclasses import replace

import numpy as np

from fastcpc.data.corrections.decisions import REMOVE, Correction, KnownSamples, describe
from fastcpc.data.corrections.reader import read_corrections
from fastcpc.data.dataset import Dataset, LeftOut
from fastcpc.data.labels.noise import Labels, keep_samples
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")


def corrections_of(file: str, dataset: Dataset, labels: Labels) -> tuple[Correction, ...]:
    """The decisions of data.corrections, checked against the whole training set, before data.subset.

    labels: given labels before any correction. InputError where the file does not fit them.
    """
    known = KnownSamples(
        dataset.train.source_index,
        dataset.train.names,
        labels.given,
        dataset.class_names,
        dataset.class_ids,
        f"data.name={dataset.name}",
        frozenset(name for split in dataset.tests.values() if split is not dataset.train for name in split.names),
    )
    found = read_corrections(file, known)
    logger.info("data.corrections=%s: %s", file, describe(found))
    return found


def apply_corrections(dataset: Dataset, labels: Labels, corrections: tuple[Correction, ...]) -> tuple[Dataset, Labels]:
    """The training set without removed samples; the others with corrected labels.

    Relabelled and kept samples are ``Labels.confirmed``. Samples outside data.subset are corrected in
    ``Dataset.left_out``. InputError where no sample remains.
    """
    row_of = {index: row for row, index in enumerate(dataset.train.source_index.tolist())}
    given_N = labels.given.copy()
    confirmed_N, removed_N = np.zeros(len(given_N), bool), np.zeros(len(given_N), bool)
    others = []
    for one in corrections:
        row = row_of.get(one.index)
        if row is None:
            others.append(one)
        elif one.decision == REMOVE:
            removed_N[row] = True
        else:
            given_N[row], confirmed_N[row] = one.label, True
    if removed_N.all():
        raise InputError("data.corrections: removes every training sample; keep some")
    dataset = replace(dataset, left_out=_left_out(dataset.left_out, others))
    labels = replace(labels, given=given_N, confirmed=confirmed_N, corrections=corrections)
    return keep_samples(dataset, labels, np.flatnonzero(~removed_N), why="removed")


def _left_out(left: LeftOut, corrections: list[Correction]) -> LeftOut:
    """Corrected labels of samples outside data.subset."""
    by_name = {one.path: one for one in corrections}
    labels, removed = left.labels.copy(), left.removed.copy()
    for row, name in enumerate(left.names):
        one = by_name.get(name)
        if one is not None and one.decision == REMOVE:
            removed[row] = True
        elif one is not None:
            labels[row] = one.label
    return replace(left, labels=labels, removed=removed)
