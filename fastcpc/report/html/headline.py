"""The main results of a run: accuracy, estimated noise, noise per class."""

from dataclasses import dataclass

import numpy as np

from fastcpc.arrays import Bools
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.report.results.run import Run
from fastcpc.report.results.suspects import Suspects


@dataclass(frozen=True)
class ClassNoise:
    """Noise among the given labels of one class. Shares in [0, 1]; None where the class is empty or unknown.

    estimated: share of its labels that are predicted noisy. actual: share of wrong labels among those with a true
    label. suspects: number of its suspected labels. predicted: number of samples predicted as this class.
    """

    label: int
    count: int
    estimated: float | None
    actual: float | None
    suspects: int
    predicted: int


@dataclass(frozen=True)
class Noise:
    """Estimated and actual share of wrong labels of all samples and per class, noisiest class first."""

    estimated: float
    actual: float | None
    classes: list[ClassNoise]

    @property
    def noisiest(self) -> ClassNoise | None:
        """The class with the highest estimate; None where all estimates are 0."""
        return self.classes[0] if self.classes and self.classes[0].estimated else None


def estimate_noise(run: Run, samples: SampleTable, suspects: Suspects) -> Noise:
    """Estimate the noise: the share of labels that the run's cleaner predicts noisy."""
    noisy_N = ~samples.is_clean_N
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
                _share(noisy_N, own_N),
                _share(wrong_N, own_N & known_N),
                int(suspects.is_issue_N[own_N].sum()),
                int(predicted_K[label]),
            )
        )
    classes.sort(key=lambda row: -1.0 if row.estimated is None else row.estimated, reverse=True)
    return Noise(float(noisy_N.mean()), _share(wrong_N, known_N), classes)


def _share(wrong_N: Bools, among_N: Bools) -> float | None:
    return float(wrong_N[among_N].mean()) if among_N.any() else None


@dataclass(frozen=True)
class AccuracySummary:
    """Test accuracy in percent: last epoch, best epoch (chosen on the test set), mean of the last ten."""

    final: float
    best: float
    best_epoch: int
    last10: float
    epochs: int


def accuracy_of(run: Run) -> AccuracySummary | None:
    """The accuracy of the epochs so far; None before the first."""
    values = [(line["test_top1"], line["epoch"]) for line in run.metrics if line.get("test_top1") is not None]
    if not values:
        return None
    top1 = [value for value, _ in values]
    best = max(top1)
    return AccuracySummary(top1[-1], best, values[top1.index(best)][1], float(np.mean(top1[-10:])), len(top1))


def describe_state(run: Run) -> str:
    """Whether the run is finished, as text."""
    done, epochs = len(run.metrics), run.config.train.epochs
    if run.summary is not None and run.summary.get("kind") == "audit":
        return "audit of frozen embeddings, finished"
    if run.summary is not None:
        return f"finished, {epochs} epochs"
    return f"not finished: {done} of {epochs} epochs so far"


def describe_noise(run: Run) -> str:
    """The kind of label noise, as text."""
    labels = run.labels
    if labels.noise_kind == "none":
        return "the data set's own"
    if labels.noise_kind == "file":
        return "from a label file"
    return f"{labels.noise_kind} noise on {100 * labels.nominal_rate:g} %"
