"""Labels of a data set that is in memory (digits, CIFAR, embeddings), as a label file for noise.kind=file."""

from collections.abc import Sequence
from pathlib import Path

from fastcpc.arrays import Ints
from fastcpc.atomic_io import replace_file
from fastcpc.data.corrections.decisions import RELABEL, Correction
from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.list_classes import numbers_count
from fastcpc.data.labels.noise import Labels, make_labels
from fastcpc.data.registry import load_dataset
from fastcpc.errors import InputError
from fastcpc.report.results.run import Run


def check_labels_name(run: Run, target: Path) -> None:
    """InputError for another kind of file."""
    if target.suffix.lower() != ".csv":
        raise InputError(f"--cleaned-list {target}: a label file of {run.config.data.name} must end in .csv")


def whole_labels(run: Run) -> tuple[Dataset, Labels]:
    """The whole data set of a run and its labels, before data.subset and corrections."""
    dataset = load_dataset(run.config.data)
    return dataset, make_labels(dataset, run.config.noise, run.config.run.seed)


def corrected(dataset: Dataset, labels_A: Ints, corrections: Sequence[Correction]) -> Ints:
    """The labels with those of relabelled samples replaced; a copy."""
    row_of = {index: row for row, index in enumerate(dataset.train.source_index.tolist())}
    labels_A = labels_A.copy()
    for one in corrections:
        if one.decision == RELABEL:
            labels_A[row_of[one.index]] = one.label
    return labels_A


def write_array_labels(dataset: Dataset, labels_A: Ints, target: Path) -> None:
    """Write the columns index and label of the whole training set. RunError on a failed write."""
    # where names are numbers of other classes, such as 1, 2, 3, a label file has the names
    numbered = numbers_count({name: k for k, name in enumerate(dataset.class_names)})
    text_of = [str(k) if numbered else name for k, name in enumerate(dataset.class_names)]
    index_A = dataset.train.source_index.tolist()
    lines = [f"{index},{text_of[label]}" for index, label in zip(index_A, labels_A.tolist(), strict=True)]
    replace_file(target, "\n".join(["index,label", *lines, ""]).encode())
