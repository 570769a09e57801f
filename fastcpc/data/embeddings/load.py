"""Loads the data set ``embeddings``: training and test embeddings, their labels and statistics."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastcpc.config.paths import NO_LABELS
from fastcpc.config.schema import DataConfig
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import Dataset, EmbeddingSplit
from fastcpc.data.datasets.held_out import draw_held_out
from fastcpc.data.embeddings.array_file import EmbeddingArray, open_embeddings
from fastcpc.data.embeddings.label_list import LabelTable
from fastcpc.data.embeddings.label_table import read_embedding_labels
from fastcpc.data.embeddings.record import EMBEDDINGS, INDEX
from fastcpc.data.embeddings.statistics import check_finite, column_statistics
from fastcpc.errors import InputError

logger = logging.getLogger("fastcpc")


def load_embeddings(config: DataConfig) -> Dataset:
    """The data set of ``data.embeddings``.

    Test samples: data.test_embeddings, else the rows with split test (else val) of the labels, else a part of each
    class (data.holdout). Raises InputError, one line with file and place, where a file is unusable.
    """
    file, labels_file = embedding_files(config)
    array = open_embeddings("data.embeddings", file)
    table = read_embedding_labels("data.labels", labels_file, array)
    whole = EmbeddingSplit(
        array, np.arange(len(array)), table.labels, table.trusted, np.arange(len(array)), table.names
    )
    train, tests = _splits(config, whole, table)
    key = f"data.embeddings={file}"
    mean, std = column_statistics(key, array, train.rows)
    for split in tests.values():
        if split is not train:
            check_finite(key if split.array is array else f"data.test_embeddings={config.test_embeddings}", *_of(split))
    return Dataset(
        name="embeddings",
        class_names=table.class_names,
        train=train,
        tests=tests,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        weak=WeakPolicy(flip=False, padding=0),
    )


def embedding_files(config: DataConfig) -> tuple[str, str]:
    """The paths of embeddings and labels; for a folder of fastcpc-embed its two files."""
    folder = Path(config.embeddings).expanduser()
    if folder.is_dir() and (folder / EMBEDDINGS).is_file():
        return str(folder / EMBEDDINGS), config.labels or str(folder / INDEX)
    if not config.labels:
        raise InputError(NO_LABELS)
    return config.embeddings, config.labels


def _of(split: EmbeddingSplit) -> tuple[EmbeddingArray, np.ndarray]:
    return split.array, split.rows


def _splits(
    config: DataConfig, whole: EmbeddingSplit, table: LabelTable
) -> tuple[EmbeddingSplit, dict[str, EmbeddingSplit]]:
    """The training part and the test parts by name; "test" is always there."""
    rows_of = {name: np.flatnonzero(table.splits == name) for name in ("train", "val", "test")}
    if not len(rows_of["train"]):
        raise InputError(f"data.labels={config.labels}: no row has split train")
    train = whole.take(rows_of["train"])
    tests = {name: whole.take(rows_of[name]) for name in ("val", "test") if len(rows_of[name])}
    if config.test_embeddings:
        tests["test"] = _test_file(config, whole, table)
    elif not tests and config.holdout:
        train, tests["test"] = _hold_out(train, config.holdout)
        logger.warning(
            "embeddings: no test part: %s embeddings (%g of each class) are kept out of training for the accuracy, "
            "which is judged by their given labels", f"{len(tests['test']):,}", config.holdout,
        )  # fmt: skip
    tests.setdefault("test", tests.get("val", train))
    return train, tests


def _test_file(config: DataConfig, whole: EmbeddingSplit, table: LabelTable) -> EmbeddingSplit:
    array = open_embeddings("data.test_embeddings", config.test_embeddings)
    if array.shape[1] != whole.array.shape[1]:
        raise InputError(
            f"data.test_embeddings={config.test_embeddings}: {array.shape[1]} dimensions, data.embeddings has "
            f"{whole.array.shape[1]}; both must come from the same model"
        )
    test = read_embedding_labels("data.test_labels", config.test_labels, array, table.class_names)
    rows = np.arange(len(array))
    return EmbeddingSplit(array, rows, test.labels, test.trusted, rows, test.names)


def _hold_out(train: EmbeddingSplit, share: float) -> tuple[EmbeddingSplit, EmbeddingSplit]:
    """Split off a test part (``draw_held_out``). Raises InputError where no class has two samples."""
    out = draw_held_out(train.labels, share)
    if not out.any():
        raise InputError("data.labels: no class has two samples; give data.test_embeddings, or data.holdout=0")
    return train.take(np.flatnonzero(~out)), replace(train.take(np.flatnonzero(out)), trusted=None)
