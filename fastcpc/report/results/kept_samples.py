"""Which training samples a cleaned list keeps: all without suspects, those never scored, and some of each class.

``write_cleaned`` uses it. Training refuses a list without an image of a class. So some images of a class stay where
all of its labels are suspected: those with the highest scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcpc.arrays import Bools, Ints
from fastcpc.config.constraints import shown
from fastcpc.data.dataset import Dataset, LeftOut
from fastcpc.data.identity import BROKEN, REMOVED, TRAIN, USED, Part
from fastcpc.data.labels.noise import Labels
from fastcpc.engine.launch import load_data
from fastcpc.engine.outputs.data_record import held_out_of, identity_of, read_record, require_same
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.errors import InputError
from fastcpc.report.results.run import Run

KEPT_PER_CLASS = 8  # images of a class whose labels are all suspected; a mixture per class needs as many losses


@dataclass(frozen=True)
class KeptSamples:
    """The training samples of a cleaned list.

    rows: of ``SampleTable``. unchecked: path and given label of images outside data.subset, which no network has
    scored. notes: what the user should know, one line each.
    """

    rows: Ints
    unchecked: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    def images(self, samples: SampleTable) -> list[tuple[str, int]]:
        """Path and given label of each kept image."""
        given = samples.given_N[self.rows].tolist()
        return [*zip((samples.paths[row] for row in self.rows.tolist()), given, strict=True), *self.unchecked]

    def usage(self, text: str) -> str:
        """The line on how to use the list, and the notes."""
        return "; ".join([text, *self.notes])


def kept_samples(run: Run, samples: SampleTable, is_issue_N: Bools, left_out: LeftOut) -> KeptSamples:
    """The samples that the cleaned list of a run keeps.

    left_out: the images that the run was not trained on.
    """
    unchecked = [
        (name, int(label))
        for name, label, gone in zip(left_out.names, left_out.labels, left_out.broken | left_out.removed, strict=True)
        if not gone
    ]
    is_kept_N, notes = _with_every_class(run.class_names, samples, ~is_issue_N, {label for _, label in unchecked})
    if unchecked:
        notes.append(f"{len(unchecked):,} images outside data.subset are kept unchecked, with their given labels")
    if left_out.broken.any():
        notes.append(f"{int(left_out.broken.sum()):,} broken images are left out")
    if left_out.removed.any():
        notes.append(f"{int(left_out.removed.sum()):,} images are removed by data.corrections")
    return KeptSamples(np.flatnonzero(is_kept_N), tuple(unchecked), tuple(notes))


def _with_every_class(
    class_names: Sequence[str], samples: SampleTable, is_kept_N: Bools, others: set[int]
) -> tuple[Bools, list[str]]:
    """Keep the images with the highest scores of each class that would have none.

    others: classes that have images elsewhere.
    """
    is_kept_N, notes = is_kept_N.copy(), []
    for label in np.unique(samples.given_N).tolist():
        own = np.flatnonzero(samples.given_N == label)
        if label in others or is_kept_N[own].any():
            continue
        best = own[np.lexsort((samples.index_N[own], -samples.clean_prob_N[own], -samples.p_given_N[own]))]
        is_kept_N[best[:KEPT_PER_CLASS]] = True
        notes.append(
            f"class {shown(class_names[label])}: all {len(own):,} labels are suspected, the "
            f"{min(len(own), KEPT_PER_CLASS)} with the highest scores are kept; check this class by eye"
        )
    return is_kept_N, notes


def load_same_data(run: Run) -> tuple[Dataset, Labels]:
    """The data set and the labels of a run; InputError where they are not those that it began with."""
    dataset, labels = load_data(run.config, held_out_of(read_record(run.path)))
    require_same(run.path, run.config, identity_of(run.config, dataset, labels))
    return dataset, labels


def left_out_of(run: Run) -> LeftOut:
    """The images that a run was not trained on, for a list that needs no image file.

    InputError where the data set is there and is not the one of the run. Without the data set the run's record tells.
    """
    try:
        data = load_data(run.config, held_out_of(read_record(run.path)))
    except InputError:
        record = read_record(run.path)
        return LeftOut() if record is None else _recorded(record.parts[TRAIN])
    require_same(run.path, run.config, identity_of(run.config, *data))
    return data[0].left_out


def _recorded(part: Part) -> LeftOut:
    left = np.flatnonzero(part.use_N != USED)
    names = tuple(part.names[row] for row in left.tolist())
    return LeftOut(names, part.labels_N[left], part.use_N[left] == BROKEN, part.use_N[left] == REMOVED)
