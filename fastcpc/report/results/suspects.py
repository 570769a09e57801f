"""Suspected label errors, the worst first, in the words of cleanlab beside ours.

A label is suspected when the cleaner does not predict it clean and both networks together predict another one.
The scores are in-sample: the networks have trained on these images, though each on what the other one predicted clean.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastcpc.arrays import Bools, Floats, Ints
from fastcpc.engine.outputs.sample_table import SampleTable, cleaner_columns
from fastcpc.report.results.run import Run


@dataclass(frozen=True)
class Quality:
    """How right the suspicion is, among the samples whose true label is known. None: there is nothing to divide by.

    precision: share of the suspected labels that are wrong. recall: share of the wrong labels that are suspected.
    suggestion_accuracy: share of the suspected and wrong labels whose suggested class is the true one.
    """

    num_wrong: int
    precision: float | None
    recall: float | None
    suggestion_accuracy: float | None


@dataclass(frozen=True)
class Suspects:
    """All samples in order of suspicion; rows are those of ``SampleTable``.

    order_N: (N,) rows, the worst first. is_issue_N: (N,) whether row i is suspected. label_score_N: (N,) in [0, 1],
    1 = good. threshold: of the clean probability, above which a label is not suspected. quality: None where no true
    label is known.
    """

    order_N: Ints
    is_issue_N: Bools
    label_score_N: Floats
    threshold: float
    quality: Quality | None

    @property
    def rows(self) -> Ints:
        """The suspected samples alone, the worst first."""
        return self.order_N[self.is_issue_N[self.order_N]]


def find_suspects(run: Run, samples: SampleTable, threshold: float | None = None) -> Suspects:
    """Suspected labels of a run.

    threshold: in [0, 1]; None takes the run's own cleaner.tau. label_score is both networks' mean softmax at the given
    label (cleanlab's self-confidence); equal scores are ordered by clean probability, then by index.
    """
    is_issue_N = samples.suspected(threshold)
    order_N = np.lexsort((samples.index_N, samples.clean_prob_N, samples.p_given_N))
    used = run.config.cleaner.tau if threshold is None else threshold
    return Suspects(order_N, is_issue_N, samples.p_given_N, used, suspect_quality(samples, is_issue_N))


def suspect_quality(samples: SampleTable, is_issue_N: Bools) -> Quality | None:
    """Precision and recall of a suspicion, (N,) bool by row; None where no true label is known."""
    if samples.true_N is None:
        return None
    known_N = samples.true_N >= 0
    wrong_N = known_N & (samples.given_N != samples.true_N)
    found_N = is_issue_N & wrong_N
    right_N = found_N & (samples.predicted_N == samples.true_N)
    found = int(found_N.sum())
    return Quality(
        num_wrong=int(wrong_N.sum()),
        precision=_share(found, int((is_issue_N & known_N).sum())),
        recall=_share(found, int(wrong_N.sum())),
        suggestion_accuracy=_share(int(right_N.sum()), found),
    )


def suspects_table(run: Run, samples: SampleTable, suspects: Suspects, rows: Ints) -> pa.Table:
    """These rows as a table: given_label and predicted_label are class ids, ``*_class`` their names.

    is_label_issue and label_score are as cleanlab's; the rest are the columns of clean_probabilities.parquet. Columns
    that the run has not (q_gmm_*, q_cpc_*, true_*) are left out.
    """
    names = np.array(run.class_names, dtype=object)
    columns: dict[str, pa.Array] = {
        "index": pa.array(samples.index_N[rows]),
        "path": pa.array([samples.paths[row] for row in rows.tolist()], pa.string()),
        "given_label": pa.array(samples.given_N[rows]),
        "given_class": pa.array(names[samples.given_N[rows]], pa.string()),
        "predicted_label": pa.array(samples.predicted_N[rows]),
        "predicted_class": pa.array(names[samples.predicted_N[rows]], pa.string()),
        "is_label_issue": pa.array(suspects.is_issue_N[rows]),
        "label_score": pa.array(suspects.label_score_N[rows]),
        "clean_probability": pa.array(samples.clean_prob_N[rows]),
        "p_predicted": pa.array(samples.p_predicted_N[rows]),
    }
    q_M2 = {cleaner: values_N2[rows] for cleaner, values_N2 in samples.q_N2.items()}
    columns |= {name: pa.array(values_M) for name, values_M in cleaner_columns(q_M2)}
    if samples.true_N is not None:
        true = [k if k >= 0 else None for k in samples.true_N[rows].tolist()]
        columns["true_label"] = pa.array(true, pa.int64())
        columns["true_class"] = pa.array([None if k is None else run.class_names[k] for k in true], pa.string())
    return pa.table(columns)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
