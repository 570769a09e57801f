"""The table of a run's last cleaning, read from its folder and checked against its labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fastcpc.engine.outputs.labels_file import labels_in_range
from fastcpc.engine.outputs.sample_table import CLEANING_FILE, SampleTable
from fastcpc.engine.outputs.score_file import LAST
from fastcpc.errors import InputError
from fastcpc.report.results.run import RESUME, Run, damaged_file, progress_of


def read_samples(run: Run) -> SampleTable:
    """The result of the run's last cleaning; true labels are those of labels.npz.

    InputError before the first cleaning, and where the file is damaged or does not match the run's labels.
    """
    path = run.path / CLEANING_FILE
    if not path.is_file():
        raise InputError(
            f"{run.path} has no {CLEANING_FILE}: it is written by the first cleaning, at the end of the warm-up of "
            f"{run.config.train.warmup_epochs} epochs, and {progress_of(run)}; {RESUME}"
        )
    try:
        samples = SampleTable.read(path)
    except ValueError as error:
        raise damaged_file(path, str(error)) from None
    _check_samples(path, samples, run)
    return replace(samples, true_N=run.labels.trusted_N)


def samples_of(run: Run) -> tuple[SampleTable | None, str]:
    """The table of a run, or why there is none yet; InputError where a run without table must have one."""
    try:
        return read_samples(run), ""
    except InputError as error:
        if run.summary is not None or (run.path / LAST).exists():
            raise
        return None, str(error)


def _check_samples(path: Path, samples: SampleTable, run: Run) -> None:
    """The rows must be the run's own samples, with labels of its classes and values in [0, 1]."""
    if not np.array_equal(samples.index_N, run.labels.source_index_N):
        raise damaged_file(path, "its rows are not the samples of labels.npz")
    if not np.array_equal(samples.given_N, run.labels.given_N):
        raise damaged_file(path, "its given labels are not those of labels.npz")
    if not labels_in_range(samples.predicted_N, 0, len(run.class_names)):
        raise damaged_file(path, f"column predicted_label has labels outside 0..{len(run.class_names) - 1}")
    for name, values_N in (
        ("clean_probability", samples.clean_prob_N),
        ("p_given", samples.p_given_N),
        ("p_predicted", samples.p_predicted_N),
    ):
        if not ((values_N >= 0) & (values_N <= 1 + 1e-5)).all():
            raise damaged_file(path, f"column {name} has values outside [0, 1]")
