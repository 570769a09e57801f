"""Accuracy: both networks' summed logits, each network alone, and the nearest prototype."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcpc.cleaner.prototypes import cosine_similarity
from fastcpc.data.loaders.base import Batch
from fastcpc.distributed import all_reduce_sum
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.scoring import predict_batch
from fastcpc.models.network import Network

TOP_K = 5


@dataclass(frozen=True)
class Accuracy:
    """Percent of a split's samples, in [0, 100]. top5 is the top-K where there are fewer than 5 classes."""

    top1: float
    top5: float
    network_top1: tuple[float, ...]
    network_top5: tuple[float, ...]
    prototype_top1: float
    prototype_top5: float
    num_samples: int


def hits(scores_BK: Tensor, labels_B: Tensor) -> Tensor:
    """How many samples have their label first, and among the first 5: (2,) int64 on the device."""
    ranked_BT = scores_BK.topk(min(TOP_K, scores_BK.shape[1]), dim=1).indices
    right_BT = ranked_BT == labels_B[:, None]
    return torch.stack([right_BT[:, 0].sum(), right_BT.sum()])


@torch.no_grad()
def evaluate(
    networks: Sequence[Network], batches: Iterator[Batch], labels_N: Tensor, numerics: Numerics, *, cosine: bool = False
) -> Accuracy:
    """Evaluate both networks on one pass over a split; the device is read once, at the end.

    batches: batches with one "test" view; those of all ranks together bring every sample once. labels_N: (N,) int64
    true labels, on the device. cosine: whether prototypes are compared by cosine (``cpc_only``) or by dot product.
    Nearest prototype: the largest sum of both networks' similarities.
    """
    for network in networks:
        network.eval()
    counts = torch.zeros(len(networks) + 2, 2, dtype=torch.int64, device=numerics.device)
    for batch in batches:
        labels_B = labels_N[batch.index]
        all_logits, all_similarities = [], []
        for network in networks:
            feat_BD, logits_BK = predict_batch(network, batch.views[0], numerics)
            embeddings_BE, prototypes_KE = network.embed(feat_BD.float()), network.prototype_matrix()
            all_logits.append(logits_BK)
            all_similarities.append(
                cosine_similarity(embeddings_BE, prototypes_KE) if cosine else embeddings_BE @ prototypes_KE.T
            )
        rows = [torch.stack(all_logits).sum(0), *all_logits, torch.stack(all_similarities).sum(0)]
        counts += torch.stack([hits(scores_BK, labels_B) for scores_BK in rows])
    all_reduce_sum(counts, "evaluate")
    percent = (counts.double() * (100.0 / len(labels_N))).tolist()
    return Accuracy(
        top1=percent[0][0],
        top5=percent[0][1],
        network_top1=tuple(row[0] for row in percent[1:-1]),
        network_top5=tuple(row[1] for row in percent[1:-1]),
        prototype_top1=percent[-1][0],
        prototype_top5=percent[-1][1],
        num_samples=len(labels_N),
    )
