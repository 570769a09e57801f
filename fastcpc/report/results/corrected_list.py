"""Applies decisions about a run's samples: the corrected data set as a list, for fastcpc-clean --corrections.

The list is the data set that data.corrections=FILE trains on. Suspects without a decision keep their given labels.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fastcpc.atomic_io import replace_file
from fastcpc.config.constraints import shown
from fastcpc.data.corrections.decisions import RELABEL, REMOVE, Correction, KnownSamples
from fastcpc.data.corrections.reader import read_corrections
from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.noise import Labels
from fastcpc.data.registry import dataset_spec
from fastcpc.engine.launch import load_data
from fastcpc.engine.outputs.corrections_file import APPLIED_FILE, read_applied
from fastcpc.engine.outputs.data_record import held_out_of, read_record
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.array_labels import check_labels_name, corrected, whole_labels, write_array_labels
from fastcpc.report.results.cleaned_list import check_list_name, require_own_labels, write_images
from fastcpc.report.results.kept_samples import load_same_data
from fastcpc.report.results.run import Run, damaged_file


def past_decisions(run: Run) -> tuple[Correction, ...]:
    """The decisions that a run was trained with. InputError where the copy in its folder is damaged."""
    if not run.config.data.corrections:
        return ()
    try:
        return read_applied(run.path)
    except ValueError as error:
        raise damaged_file(run.path / APPLIED_FILE, str(error)) from None


def known_samples(run: Run, samples: SampleTable) -> KnownSamples:
    """The samples of a run with their labels before its own corrections, and those that these removed."""
    past = {one.index: one for one in past_decisions(run)}
    index = samples.index_N.tolist()
    given = [past[i].given if i in past else int(k) for i, k in zip(index, samples.given_N.tolist(), strict=True)]
    gone = [one for one in past.values() if one.decision == REMOVE]
    return KnownSamples(
        np.array([*index, *(one.index for one in gone)], np.int64),
        (*samples.paths, *(one.path for one in gone)),
        np.array([*given, *(one.given for one in gone)], np.int64),
        run.class_names,
        run.labels.class_ids,
        str(run.path),
    )


def run_decisions(run: Run, samples: SampleTable, file: Path) -> tuple[Correction, ...]:
    """The decisions of a file about samples of a run. InputError where they do not fit."""
    return read_corrections(file, known_samples(run, samples))


def load_corrected(run: Run, file: Path) -> tuple[Dataset, Labels]:
    """The data set of a run as data.corrections=FILE trains on it.

    InputError where the data set is not the one of the run, and where the file does not fit it.
    """
    load_same_data(run)
    data = replace(run.config.data, corrections=str(file))
    return load_data(replace(run.config, data=data), held_out_of(read_record(run.path)))


def write_corrected(run: Run, dataset: Dataset, labels: Labels, target: Path) -> str:
    """Write the list of a corrected data set (``load_corrected``); returns one line that says how to use it.

    The formats are those of ``write_cleaned``. InputError where the format cannot hold the decisions.
    """
    spec = dataset_spec(run.config.data.name)
    if spec.list_files is None:
        return _write_labels(run, labels, target)
    left = dataset.left_out
    gone_M = left.broken | left.removed
    others = [(name, int(k)) for name, k, gone in zip(left.names, left.labels, gone_M, strict=True) if not gone]
    images = [*zip(dataset.train.names, labels.given.tolist(), strict=True), *others]
    if spec.list_without is None:
        check_list_name(target)
        usage = write_images(run, images, target, dataset)
    else:
        require_own_labels(run)
        if any(one.decision == RELABEL for one in labels.corrections):
            raise InputError(
                f"--cleaned-list {target}: {dataset.name}'s own list has no place for corrected labels; train with "
                "data.corrections instead"
            )
        removed = [name for name, is_removed in zip(left.names, left.removed, strict=True) if is_removed]
        content, usage = spec.list_without(run.config.data, [path for path, _ in images], removed)
        replace_file(target, content)
    lost = sorted(set(range(dataset.num_classes)) - {label for _, label in images})
    return "; ".join([usage, *(f"class {shown(dataset.class_names[k])} has no training image left" for k in lost)])


def _write_labels(run: Run, labels: Labels, target: Path) -> str:
    check_labels_name(run, target)
    dataset, whole = whole_labels(run)
    write_array_labels(dataset, corrected(dataset, whole.given, labels.corrections), target)
    usage = f"all {len(whole.given):,} labels: train with noise.kind=file noise.file={target}"
    removed = sum(one.decision == REMOVE for one in labels.corrections)
    if not removed:
        return usage
    return f"{usage}; {removed:,} removed samples stay in it, because this data set cannot omit samples"
