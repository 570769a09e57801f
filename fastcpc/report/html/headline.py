"""The few numbers a reader wants first: accuracy, how many labels are wrong, and in which classes."""

from dataclasses import dataclass

import numpy as np

from fastcpc.arrays import Bools
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.results.run import Run
from fastcpc.report.results.suspects import Suspects


@dataclass(frozen=True)
class ClassNoise:
    """One class of given labels. Shares in [0, 1], None where there is nothing to divide by or nothing is known.

    estimated: share of its labels that are not predicted clean. actual: share that is wrong, of those that are known.
    suspects: labels of it that are suspected. predicted: how many samples the networks would give this class.
    """

    label: int
    count: int
    estimated: float | None
    actual: float | None
    suspects: int
    predicted: int


@dataclass(frozen=True)
class Noise:
    """Estimated and actual share of wrong labels of all samples, and by class, the noisiest first."""

    estimated: float
    actual: float | None
    classes: list[ClassNoise]

    @property
    def noisiest(self) -> ClassNoise | None:
        """The class with the highest estimate; None where no class has one above 0."""
        return self.classes[0] if self.classes and self.classes[0].estimated else None


def estimate_noise(run: Run, samples: SampleTable, suspects: Suspects) -> Noise:
    """How many labels are wrong: the share that the run's cleaner does not hold clean."""
    held_wrong_N = ~samples.is_clean_N
    known_N = np.zeros(len(samples), np.bool_) if samples.true_N is None else samples.true_N >= 0
    wrong_N = known_N if samples.true_N is None else known_N & (samples.true_N != samples.given_N)
    predicted_K = np.bincount(samples.predicted_N, minlength=len(run.class_names))
    classes = []
    for label in range(len(run.class_names)):
        own_N = samples.given_N == label
        count = int(own_N.sum())
        classes.append(
            ClassNoise(
                label,
                count,
                _share(held_wrong_N, own_N),
                _share(wrong_N, own_N & known_N),
                int(suspects.is_issue_N[own_N].sum()),
                int(predicted_K[label]),
            )
        )
    classes.sort(key=lambda row: -1.0 if row.estimated is None else row.estimated, reverse=True)
    return Noise(float(held_wrong_N.mean()), _share(wrong_N, known_N), classes)


def _share(wrong_N: Bools, among_N: Bools) -> float | None:
    return float(wrong_N[among_N].mean()) if among_N.any() else None


@dataclass(frozen=True)
class AccuracyFigures:
    """Test accuracy in percent: of the last epoch, the best one (named: it is chosen on the test set), the last ten."""

    final: float
    best: float
    best_epoch: int
    last10: float
    epochs: int


def accuracy_of(run: Run) -> AccuracyFigures | None:
    """The accuracy of a run's epochs so far; None where none has been measured."""
    values = [(line["test_top1"], line["epoch"]) for line in run.metrics if line.get("test_top1") is not None]
    if not values:
        return None
    top1 = [value for value, _ in values]
    best = max(top1)
    return AccuracyFigures(top1[-1], best, values[top1.index(best)][1], float(np.mean(top1[-10:])), len(top1))


def describe_state(run: Run) -> str:
    """Whether the run is finished, in words."""
    done, epochs = len(run.metrics), run.config.train.epochs
    if run.summary is not None:
        return f"finished, {epochs} epochs"
    return f"not finished: {done} of {epochs} epochs; what is there so far"


def describe_noise(run: Run) -> str:
    """The kind of label noise, in words."""
    labels = run.labels
    if labels.noise_kind == "none":
        return "labels as they came"
    if labels.noise_kind == "file":
        return "labels of a file"
    return f"{labels.noise_kind} noise on {100 * labels.nominal_rate:g} %"
