"""Partitions: clean probabilities to labelled and unlabelled sets, and checks that a partition can be trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Partition:
    """The labelled set X and the unlabelled set U of one network's training data.

    clean_N: (N,) bool, True in X (labelled), False elsewhere. clean_prob_N: (N,) float32 in [0, 1], the weight w of a
    label. It is NaN for a sample that was not scored (outside the epoch's pool), which is in neither set.
    """

    clean_N: Tensor
    clean_prob_N: Tensor

    @property
    def labelled(self) -> Tensor:
        """Indices of X, int64, on the CPU (reads the device)."""
        return torch.nonzero(self.clean_N.cpu()).flatten()

    @property
    def unlabelled(self) -> Tensor:
        """Indices of U, int64, on the CPU (reads the device)."""
        return torch.nonzero((~self.clean_N & ~self.clean_prob_N.isnan()).cpu()).flatten()

    @property
    def scored(self) -> Tensor:
        """Indices of X and U together, int64, on the CPU (reads the device)."""
        return torch.nonzero(~self.clean_prob_N.isnan().cpu()).flatten()

    def scatter_to(self, rows_M: Tensor, num_samples: int) -> "Partition":
        """This partition of M samples as one of all N, where sample i is row rows_M[i] (int64 (M,), distinct)."""
        clean_N = torch.zeros(num_samples, dtype=torch.bool, device=self.clean_N.device)
        clean_prob_N = torch.full((num_samples,), torch.nan, device=self.clean_N.device)
        clean_N[rows_M], clean_prob_N[rows_M] = self.clean_N, self.clean_prob_N
        return Partition(clean_N, clean_prob_N)


def partition_samples(clean_prob_N: Tensor, tau: float) -> Partition:
    """A sample is clean iff its clean probability exceeds tau."""
    return Partition(clean_prob_N > tau, clean_prob_N)


def co_divide(clean_prob_1_N: Tensor, clean_prob_2_N: Tensor, tau: float) -> list[Partition]:
    """The partition for network 1 by network 2's probabilities, and for network 2 by network 1's (Alg. 1, l. 5-9)."""
    return [partition_samples(clean_prob_2_N, tau), partition_samples(clean_prob_1_N, tau)]


def partition_problem(partition: Partition, labels_N: Tensor, num_classes: int) -> str:
    """Why a partition must not be trained on; empty where it may.

    X needs at least as many samples as there are classes: otherwise MixUp and BatchNorm see the same few images in
    every batch. U may be empty: clean data is partitioned that way.
    """
    num_labelled = int(partition.clean_N.sum())
    if num_labelled < num_classes:
        return (
            f"only {num_labelled} of {len(labels_N)} samples are predicted clean, fewer than the {num_classes} classes"
        )
    return ""


def classes_without_clean(partition: Partition, labels_N: Tensor, num_classes: int) -> tuple[int, ...]:
    """Classes that have samples but none in X."""
    present_K = torch.bincount(labels_N, minlength=num_classes) > 0
    kept_K = torch.bincount(labels_N[partition.clean_N], minlength=num_classes) > 0
    return tuple(torch.nonzero(present_K & ~kept_K).flatten().tolist())
