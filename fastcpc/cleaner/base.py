"""What a cleaner is: it gives each sample of one network the probability that its given label is clean.

A new cleaner is a class with the members of ``Cleaner`` and a row in ``registry.py`` and config/names.py.
engine/cleaning.py calls cleaners, and turns their probabilities into partitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from fastcpc.cleaner.partition import Partition
from fastcpc.config.schema import Config
from fastcpc.data.rng import fold
from fastcpc.distributed import Shard
from fastcpc.kernels import GroupOrder, MixtureFit
from fastcpc.models.network import Network

Similarity = Literal["dot", "cosine"]


@dataclass(frozen=True)
class CleanerInput:
    """M scored samples of one network. Tensors are on the device.

    network, optimizer: of this network; the optimiser has the projector and the prototypes. number: 1 or 2. loss_N:
    (M,) float32 cross entropy with the given label. values_N: (M,) float32 in [0, 1], normalised losses, averaged over
    ``cleaner.loss_history`` epochs where the cleaner uses a history. predicted_N: (M,) int64. prob_given_N,
    prob_predicted_N: (M,) float32, softmax at those labels. feat_nD: features of this rank's samples, by shard.
    labels_N: (M,) int64 given labels; order: the same, sorted. teacher: this network's partition by the previous
    cleaner of the kind, None for the first. teacher_problem: why that partition must not be trained on, or empty.
    confirmed_N: (M,) bool, labels that a reviewer confirmed, which need no decision; None without corrections.
    noise_bound: 0-d, upper bound of the share of wrong labels, of the first cleaning; None without a guard.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    number: int
    epoch: int
    config: Config
    num_classes: int
    loss_N: Tensor
    values_N: Tensor
    predicted_N: Tensor
    prob_given_N: Tensor
    prob_predicted_N: Tensor
    feat_nD: Tensor
    labels_N: Tensor
    order: GroupOrder
    shard: Shard
    teacher: Partition | None = None
    teacher_problem: str = ""
    confirmed_N: Tensor | None = None
    noise_bound: Tensor | None = None

    @property
    def own_labels_n(self) -> Tensor:
        """Given labels of this rank's samples."""
        return self.labels_N if self.shard.is_whole else self.labels_N[self.shard.rows.to(self.labels_N.device)]

    def seed(self, purpose: str) -> int:
        """Seed of a purpose in this epoch, for this network."""
        return fold(self.config.run.seed, purpose, self.epoch, self.number)


@dataclass(frozen=True)
class CleanerResult:
    """clean_prob_N: (M,) float32 in [0, 1], the same on every rank. problem: why the probabilities must not be used,
    or empty. notes: what the user should know, one line each, without the network's number. mixtures: fits that score
    files reuse, "agn" or "awr"."""

    clean_prob_N: Tensor
    problem: str = ""
    notes: tuple[str, ...] = ()
    mixtures: Mapping[str, MixtureFit] = field(default_factory=dict)


class Cleaner(Protocol):
    """A cleaner of both networks, one call per network and epoch; subclasses inherit the defaults.

    name: suffix of its columns q_<name>_1, q_<name>_2 and of its metric auc_<name>. title: its name in the texts of
    reports; empty: its name. uses_loss_history: whether ``values_N`` is averaged over epochs. similarity: how its
    prototypes are compared; None where it trains none.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    uses_loss_history: ClassVar[bool] = False
    similarity: ClassVar[Similarity | None] = None

    def clean(self, data: CleanerInput) -> CleanerResult:
        """Clean probabilities of these samples. It may train the projector and the prototypes; every rank calls."""
        ...


def class_list(classes: tuple[int, ...], most: int = 10) -> str:
    """Class ids in a message, the first of them."""
    return ", ".join(str(k) for k in classes[:most]) + (", ..." if len(classes) > most else "")
