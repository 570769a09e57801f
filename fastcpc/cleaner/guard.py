"""The guard against harm at low noise (``cleaner.guard=auto``).

A mixture of two components always splits the losses, even where all labels are correct. With few wrong labels most
labels that it rejects are correct, and in an easy class about half the class. Three rules prevent this:

- A label that its network predicts stays clean. A wrong label that is not memorised differs from the prediction.
- Where classes overlap, a network also contradicts correct labels. But it seldom does where it is confident. So the
  confident samples after the warm-up bound the share of wrong labels. Where the bound is low, at most this share of the
  labels is rejected. Later the networks know the labels that they train on, and confidence says nothing.
- With few labels predicted wrong, the labelled set X is trained on by cross entropy. MixMatch gains from unlabelled
  samples. With almost none it only regularises, and ends below plain training. Prototypes learn what to reject from
  the unlabelled set U, so they are not trained either. The confusion cleaner decides in their place: it estimates one
  matrix from all samples, and a mixture per class has a handful of wrong labels to fit.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fastcpc.cleaner.base import CleanerInput, CleanerResult
from fastcpc.cleaner.partition import Partition

Guard = Literal["none", "auto"]
NEARLY_CLEAN = 0.15  # share of samples in U, or bound of wrong labels, below which the last two rules hold
CONFIDENT, MIN_CONFIDENT = 0.1, 50  # share and number of the samples of a predicted class that count as confident
DEVIATIONS = 2.0  # standard deviations between the share of the confident samples and the bound


def guarded(result: CleanerResult, data: CleanerInput) -> CleanerResult:
    """Raise the clean probability of labels that must stay to at least tau + (1 - tau) p[given label].

    They are the labels that the network predicts, and where ``noise_bound`` is below NEARLY_CLEAN, all but this share
    of the labels: those of the lowest clean probability. The floor is at least ``cleaner.tau`` and grows with the
    softmax p of the label, so that clean probabilities keep an order. Other samples keep theirs. Returns a new result.
    """
    tau = data.config.cleaner.tau
    floor_N = tau + (1 - tau) * data.prob_given_N.to(result.clean_prob_N)
    kept_N = torch.maximum(result.clean_prob_N, floor_N)
    clean_prob_N = torch.where(data.predicted_N == data.labels_N, kept_N, result.clean_prob_N)
    if data.noise_bound is not None:
        place_N = torch.empty_like(data.labels_N)
        place_N[clean_prob_N.argsort(stable=True)] = torch.arange(len(place_N), device=place_N.device)
        is_beyond_N = place_N >= data.noise_bound * len(place_N)
        clean_prob_N = torch.where((data.noise_bound < NEARLY_CLEAN) & is_beyond_N, kept_N, clean_prob_N)
    return replace(result, clean_prob_N=clean_prob_N)


def noise_bound(predicted_N: Tensor, confidence_N: Tensor, labels_N: Tensor, num_classes: int) -> Tensor:
    """Upper bound of the share of wrong labels, from the most confident samples of each predicted class; 0-d float64.

    predicted_N, labels_N: (N,) int64. confidence_N: (N,), softmax of the predicted class. A class weighs as many
    samples as it is predicted for. Never waits for the device.
    """
    num, device = len(labels_N), labels_N.device
    order_N = confidence_N.argsort(descending=True, stable=True)
    order_N = order_N[predicted_N[order_N].argsort(stable=True)]
    sorted_N = predicted_N[order_N]
    count_K = torch.zeros(num_classes, dtype=torch.float64, device=device)
    count_K.index_add_(0, sorted_N, torch.ones(num, dtype=torch.float64, device=device))
    number_K = torch.maximum((CONFIDENT * count_K).ceil(), (count_K / 2).ceil().clamp_max(MIN_CONFIDENT))
    last_K = (count_K.cumsum(0) - count_K + number_K - 1).clamp_min(0).long()
    is_confident_N = confidence_N[order_N] >= confidence_N[order_N][last_K][sorted_N]  # equal ones as well
    is_wrong_N = is_confident_N & (sorted_N != labels_N[order_N])
    confident_K = torch.zeros_like(count_K).index_add_(0, sorted_N, is_confident_N.double())
    wrong_K = torch.zeros_like(count_K).index_add_(0, sorted_N, is_wrong_N.double())
    rate_K, weight_K = (wrong_K + 0.5) / (confident_K + 1), count_K / num
    deviation = (weight_K.square() * rate_K * (1 - rate_K) / confident_K.clamp_min(1)).sum().sqrt()
    return (weight_K * wrong_K / confident_K.clamp_min(1)).sum() + DEVIATIONS * deviation


def is_nearly_clean(partition: Partition | None, guard: Guard) -> bool:
    """Whether the guard is on and fewer than NEARLY_CLEAN of the scored samples are in U. Reads the device."""
    if partition is None or guard == "none":
        return False
    scored_N = ~partition.clean_prob_N.isnan()
    return int((scored_N & ~partition.clean_N).sum()) < NEARLY_CLEAN * int(scored_N.sum())
