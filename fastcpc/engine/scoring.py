"""Scoring: losses, softmax and features of every training sample by both networks, each rank on its share."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.cleaner.prototype_sgd import kept_rows
from fastcpc.data.loaders.base import Batch
from fastcpc.distributed import Shard, all_reduce_sum, whole_shard
from fastcpc.engine.loggers.host_copies import HostCopies
from fastcpc.engine.numerics import Numerics
from fastcpc.models.network import Network

logger = logging.getLogger("fastcpc")

FEATURES_SHARE = 0.3  # of a GPU's free memory: training needs the rest


@dataclass(frozen=True)
class SampleScores:
    """What one network (or both, by mean softmax) says of every training sample, on the device.

    loss_N: (N,) float32 cross entropy with the given label. predicted_N: (N,) int64. prob_given_N, prob_predicted_N:
    (N,) float32, softmax at the given and at the predicted label. feat_ND: (N, D) in the type of activations; for the
    pair (N, 0). With several processes feat_ND holds this rank's share alone, (n, D), by ``ScoringResult.shard``; in
    main memory where it would take too much of a GPU's.
    """

    loss_N: Tensor
    predicted_N: Tensor
    prob_given_N: Tensor
    prob_predicted_N: Tensor
    feat_ND: Tensor

    @classmethod
    def empty(
        cls, num_samples: int, feat_dim: int, numerics: Numerics, features_on: torch.device | None = None
    ) -> "SampleScores":
        """Room for every sample; filled with NaN and -1 so that a sample that no batch brought cannot pass unseen."""
        floats = torch.full((3, num_samples), torch.nan, device=numerics.device)
        predicted_N = torch.full((num_samples,), -1, dtype=torch.int64, device=numerics.device)
        place = features_on or numerics.device
        feat_ND = torch.full((num_samples, feat_dim), torch.nan, dtype=numerics.dtype, device=place)
        return cls(floats[0], predicted_N, floats[1], floats[2], feat_ND)

    def on_host(self, copies: HostCopies) -> "SampleScores":
        """Copies in main memory, without the features."""
        return SampleScores(
            loss_N=copies.of(self.loss_N),
            predicted_N=copies.of(self.predicted_N),
            prob_given_N=copies.of(self.prob_given_N),
            prob_predicted_N=copies.of(self.prob_predicted_N),
            feat_ND=torch.empty(0, 0),
        )

    def put(
        self, position_B: Tensor, labels_B: Tensor, prob_BK: Tensor, feat_BD: Tensor | None, logits_BK: Tensor | None
    ) -> None:
        """Write a batch's results to its samples' positions."""
        prob_predicted_B, predicted_B = prob_BK.max(1)
        prob_given_B = prob_BK.gather(1, labels_B[:, None])[:, 0]
        loss_B = -prob_given_B.log() if logits_BK is None else F.cross_entropy(logits_BK, labels_B, reduction="none")
        self.loss_N[position_B] = loss_B
        self.predicted_N[position_B] = predicted_B
        self.prob_given_N[position_B] = prob_given_B
        self.prob_predicted_N[position_B] = prob_predicted_B
        if feat_BD is not None:
            self.feat_ND[position_B.to(self.feat_ND.device)] = feat_BD.to(self.feat_ND.device, self.feat_ND.dtype)


@dataclass(frozen=True)
class ScoringResult:
    """networks: scores of network 1 and 2. pair: of their mean softmax. rows: which training samples these are (int64
    (M,), on the device); None: all. shard: which of these M samples' features are on this rank."""

    networks: tuple[SampleScores, ...]
    pair: SampleScores
    shard: Shard
    rows: Tensor | None = None

    def on_host(self, copies: HostCopies) -> "ScoringResult":
        """This result with copies in main memory, without the features, for metrics and files."""
        rows = None if self.rows is None else copies.of(self.rows)
        networks = tuple(scores.on_host(copies) for scores in self.networks)
        return ScoringResult(networks, self.pair.on_host(copies), self.shard, rows)

    def features(self, number: int, places: Tensor) -> Tensor:
        """Features of some of these samples by network ``number`` (0 or 1), from whichever rank has them.

        Every rank must call. places: int64 (P,), on the CPU, among the M. Returns float32 (P, D) on all.
        """
        feat_nD, device = self.networks[number].feat_ND, self.pair.loss_N.device
        if self.shard.is_whole:
            return kept_rows(feat_nD, places, device)
        position_P = self.shard.positions()[places]
        here = position_P >= 0
        feat_PD = torch.zeros(len(places), feat_nD.shape[1], device=device)
        feat_PD[here.to(device)] = kept_rows(feat_nD, position_P[here], device)
        return all_reduce_sum(feat_PD, "scores")  # all but one summand are 0


def predict_batch(network: Network, images: Tensor, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """Features (B, D) in the dtype of activations and logits (B, K) in float32, without a gradient.

    images: (B, C, H, W) floating. The network must be in evaluation mode. Compiled code gets batches of one size: a
    shorter batch is padded with zero images, whose outputs are dropped. They do not change the others in that mode.
    """
    num_images, compiled = len(images), numerics.compile != "false"
    if compiled and num_images < numerics.score_batch:
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, numerics.score_batch - num_images))
    with torch.no_grad(), numerics.autocast():
        feat_BD, logits_BK = numerics.inference(features_and_logits)(network, images)
    if compiled:  # copies: the next run of a CUDA graph overwrites these tensors
        feat_BD, logits_BK = feat_BD[:num_images].clone(), logits_BK[:num_images].clone()
    return feat_BD, logits_BK


def features_and_logits(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """images: (B, C, H, W). Returns (B, D) in the dtype of activations and (B, K) in float32."""
    feat_BD = network.features(images)
    return feat_BD, classify_exactly(network, feat_BD)


def classify_exactly(network: Network, feat_BD: Tensor) -> Tensor:
    """Logits (B, K) as a float32 product, also within autocast: bfloat16 would round close logits to one value.

    Such ties would go to the lower class.
    """
    with torch.autocast(feat_BD.device.type, enabled=False):
        return network.classify(feat_BD.float())


def features_device(num_bytes: int, device: torch.device) -> torch.device:
    """Where features of this size are kept: on the device, or in main memory where they take too much of a GPU's."""
    if device.type == "cpu":
        return device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if num_bytes <= free * FEATURES_SHARE:
        return device
    logger.info(
        "features of the scoring pass (%.1f GB) are kept in main memory: the GPU has %.1f GB free",
        num_bytes / 1e9,
        free / 1e9,
    )
    return torch.device("cpu")


@torch.no_grad()
def score_samples(
    networks: Sequence[Network],
    batches: Iterator[Batch],
    labels_N: Tensor,
    numerics: Numerics,
    shard: Shard | None = None,
    features_nD: Tensor | None = None,
) -> ScoringResult:
    """Losses, softmax outputs and features of every sample, in evaluation mode.

    batches: batches with one "test" view that bring every sample of the shard once. labels_N: (N,) int64 given labels,
    on the device. shard: None: all samples, on this rank. All but the features is gathered, so that every rank returns
    the same. features_nD: the shard's features of both networks where they are at hand; then no others are kept.
    """
    for network in networks:
        network.eval()
    shard = shard or whole_shard(len(labels_N))
    num_own = len(shard.rows)
    dims = [network.feature_dim if features_nD is None else 0 for network in networks]
    place = features_device(num_own * sum(dims) * numerics.dtype.itemsize, numerics.device)
    results = [SampleScores.empty(num_own, feat_dim, numerics, place) for feat_dim in dims]
    pair = SampleScores.empty(num_own, 0, numerics)
    position_N = None if shard.is_whole else shard.positions().to(numerics.device)
    for batch in batches:
        position_B = batch.index if position_N is None else position_N[batch.index]
        labels_B = labels_N[batch.index]
        probs = []
        for network, scores in zip(networks, results, strict=True):
            feat_BD, logits_BK = predict_batch(network, batch.views[0], numerics)
            probs.append(logits_BK.softmax(1))
            scores.put(position_B, labels_B, probs[-1], feat_BD if features_nD is None else None, logits_BK)
        pair.put(position_B, labels_B, torch.stack(probs).mean(0), None, None)
    *each, both = _gathered([*results, pair], shard)
    if features_nD is not None:
        each = [replace(scores, feat_ND=features_nD) for scores in each]
    return ScoringResult(tuple(each), both, shard)


def _gathered(parts: Sequence[SampleScores], shard: Shard) -> list[SampleScores]:
    """Scores of all samples from those of each rank's; features stay where they are."""
    if shard.is_whole:
        return list(parts)
    floats = [torch.stack([part.loss_N, part.prob_given_N, part.prob_predicted_N]) for part in parts]
    floats_P3N = shard.gather(torch.stack(floats), "scores")
    classes_PN = shard.gather(torch.stack([part.predicted_N for part in parts]).to(torch.int32), "scores").long()
    return [
        SampleScores(loss_N, classes_N, given_N, predicted_N, part.feat_ND)
        for part, (loss_N, given_N, predicted_N), classes_N in zip(parts, floats_P3N, classes_PN, strict=True)
    ]


def renumbered(batches: Iterator[Batch], rows_M: Tensor, num_samples: int) -> Iterator[Batch]:
    """The batches, each sample's index replaced by its position in rows_M."""
    position_N = torch.full((num_samples,), -1, dtype=torch.int64, device=rows_M.device)
    position_N[rows_M] = torch.arange(len(rows_M), device=rows_M.device)
    for batch in batches:
        yield replace(batch, index=position_N[batch.index])
