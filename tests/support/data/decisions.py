"""Decisions about the samples of a run: what a reviewer who knows the true labels writes; not a test itself."""

from dataclasses import replace
from pathlib import Path

from fastcpc.config.schema import Config
from fastcpc.data.corrections.decisions import Correction, corrections_csv
from fastcpc.engine.launch import load_data


def true_decisions(config: Config, num: int, first: int = 0) -> tuple[Correction, ...]:
    """Decisions about samples first to first + num of a run with true labels; each fourth is removed."""
    dataset, labels = load_data(config)
    assert labels.trusted is not None
    made = []
    for row in range(first, first + num):
        index, name = int(dataset.train.source_index[row]), dataset.train.names[row]
        given, true = int(labels.given[row]), int(labels.trusted[row])
        if row % 4 == 3:
            made.append(Correction(index, name, given, "remove", -1))
        else:
            made.append(Correction(index, name, given, "keep" if given == true else "relabel", true))
    return tuple(made)


def with_decisions(config: Config, file: Path, num: int, first: int = 0) -> Config:
    """The config with data.corrections as this file of ``true_decisions``."""
    file.write_bytes(corrections_csv(true_decisions(config, num, first)))
    return replace(config, data=replace(config.data, corrections=str(file)))
