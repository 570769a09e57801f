"""The scoring pass: both networks on the same decoded batches of the whole training set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.data.feed import Batch
from fastcpc.engine.precision import Numerics
from fastcpc.models.network import Network


@dataclass(frozen=True)
class Scores:
    """What one network (or both, by mean softmax) says of every training sample, on the device.

    loss_N: (N,) float32 cross entropy with the given label. predicted_N: (N,) int64. prob_given_N, prob_predicted_N:
    (N,) float32, softmax at the given and at the predicted label. feat_ND: (N, D) in the type of activations; for the
    pair (N, 0).
    """

    loss_N: Tensor
    predicted_N: Tensor
    prob_given_N: Tensor
    prob_predicted_N: Tensor
    feat_ND: Tensor

    @classmethod
    def empty(cls, num_samples: int, feat_dim: int, numerics: Numerics) -> "Scores":
        """Room for every sample; filled with NaN and -1 so that a sample that no batch brought cannot pass unseen."""
        floats = torch.full((3, num_samples), torch.nan, device=numerics.device)
        predicted_N = torch.full((num_samples,), -1, dtype=torch.int64, device=numerics.device)
        feat_ND = torch.full((num_samples, feat_dim), torch.nan, dtype=numerics.dtype, device=numerics.device)
        return cls(floats[0], predicted_N, floats[1], floats[2], feat_ND)

    def put(
        self, index_B: Tensor, labels_B: Tensor, prob_BK: Tensor, feat_BD: Tensor | None, logits_BK: Tensor | None
    ) -> None:
        """Write a batch's results by sample index."""
        prob_predicted_B, predicted_B = prob_BK.max(1)
        prob_given_B = prob_BK.gather(1, labels_B[:, None])[:, 0]
        loss_B = -prob_given_B.log() if logits_BK is None else F.cross_entropy(logits_BK, labels_B, reduction="none")
        self.loss_N[index_B] = loss_B
        self.predicted_N[index_B] = predicted_B
        self.prob_given_N[index_B] = prob_given_B
        self.prob_predicted_N[index_B] = prob_predicted_B
        if feat_BD is not None:
            self.feat_ND[index_B] = feat_BD.to(self.feat_ND.dtype)


@dataclass(frozen=True)
class Collected:
    """networks: scores of network 1 and 2. pair: of their mean softmax. rows: which training samples these are (int64
    (M,), on the device); None: all."""

    networks: tuple[Scores, ...]
    pair: Scores
    rows: Tensor | None = None


@torch.no_grad()
def collect(networks: Sequence[Network], batches: Iterator[Batch], labels_N: Tensor, numerics: Numerics) -> Collected:
    """Losses, softmax outputs and features of every sample, in evaluation mode.

    batches: batches with one "test" view that bring every sample once. labels_N: (N,) int64 given labels, on the
    device.
    """
    for network in networks:
        network.eval()
    results = [Scores.empty(len(labels_N), network.classifier.in_features, numerics) for network in networks]
    pair = Scores.empty(len(labels_N), 0, numerics)
    for batch in batches:
        labels_B = labels_N[batch.index]
        probs = []
        for network, scores in zip(networks, results, strict=True):
            with numerics.autocast():
                feat_BD = network.features(batch.views[0])
                logits_BK = network.classify(feat_BD)
            logits_BK = logits_BK.float()
            probs.append(logits_BK.softmax(1))
            scores.put(batch.index, labels_B, probs[-1], feat_BD, logits_BK)
        pair.put(batch.index, labels_B, torch.stack(probs).mean(0), None, None)
    return Collected(tuple(results), pair)
