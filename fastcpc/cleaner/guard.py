"""The guard against harm at low noise (``cleaner.guard=auto``).

A mixture of two components always splits the losses, even where all labels are correct. With few wrong labels most
labels that it rejects are correct, and in an easy class about half the class. Two rules prevent this:

- A label that its network predicts stays clean. A wrong label that is not memorised differs from the prediction.
- With few labels predicted wrong, the labelled set X is trained on by cross entropy. MixMatch gains from unlabelled
  samples. With almost none it only regularises, and ends below plain training. Prototypes learn what to reject from
  the unlabelled set U, so they are not trained either. The confusion cleaner decides in their place: it estimates one
  matrix from all samples, and a mixture per class has a handful of wrong labels to fit.
"""

from dataclasses import replace
from typing import Literal

import torch

from fastcpc.cleaner.base import CleanerInput, CleanerResult
from fastcpc.cleaner.partition import Partition

Guard = Literal["none", "auto"]
NEARLY_CLEAN = 0.15  # share of samples in U below which the second rule holds


def guarded(result: CleanerResult, data: CleanerInput) -> CleanerResult:
    """Raise the clean probability of labels that the network predicts to at least tau + (1 - tau) p[given label].

    The floor is at least ``cleaner.tau`` and grows with the softmax p of the label, so that clean probabilities keep
    an order. Other samples keep theirs. Returns a new result.
    """
    tau = data.config.cleaner.tau
    floor_N = tau + (1 - tau) * data.prob_given_N.to(result.clean_prob_N)
    is_predicted_N = data.predicted_N == data.labels_N
    clean_prob_N = torch.where(is_predicted_N, torch.maximum(result.clean_prob_N, floor_N), result.clean_prob_N)
    return replace(result, clean_prob_N=clean_prob_N)


def is_nearly_clean(partition: Partition | None, guard: Guard) -> bool:
    """Whether the guard is on and fewer than NEARLY_CLEAN of the scored samples are in U. Reads the device."""
    if partition is None or guard == "none":
        return False
    scored_N = ~partition.clean_prob_N.isnan()
    return int((scored_N & ~partition.clean_N).sum()) < NEARLY_CLEAN * int(scored_N.sum())
