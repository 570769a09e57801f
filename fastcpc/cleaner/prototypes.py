"""CPC: the projector and prototypes learn on kept features which labels are clean (eqs. 2-5).

No gradient of this stage reaches the backbone, so one scoring pass gives all the features that every pass here needs.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.cleaner.base import Cleaner, CleanerInput, CleanerResult
from fastcpc.cleaner.finite import all_finite, momentum_of
from fastcpc.cleaner.prototype_sgd import SampleSets, kept_rows, sgd_epoch, sum_gradients
from fastcpc.config.schema import CpcConfig
from fastcpc.data.rng import generator
from fastcpc.data.sampler import shuffled_batches
from fastcpc.distributed import Shard, whole_shard
from fastcpc.kernels import prototype_scores
from fastcpc.models.network import Network

STEPS_OF_ONE_PASS = 350  # a pass this long is enough on its own (CIFAR: 390)
STEPS_WANTED = 700  # shorter passes are repeated up to about this many steps
INVERTED = 0.05  # by how much lower clean probabilities may be on average at low losses than at high losses
CERTAIN = 3.0  # standard errors by which they must be lower: in a small set they may be so by chance
CONTRADICTION = (
    "its prototypes give lower clean probabilities to labels with low losses than to those with high losses; they may "
    "have diverged (lower cpc.lr, train.lr or cpc.passes)"
)


def num_passes(setting: int, num_samples: int, batch_size: int) -> int:
    """Passes over the kept features an epoch; ``cpc.passes`` unless that is 0."""
    if setting:
        return setting
    steps = -(-num_samples // batch_size)
    return 1 if steps >= STEPS_OF_ONE_PASS else round(STEPS_WANTED / steps)


def pseudo_labels(
    predicted_N: Tensor,
    prob_predicted_N: Tensor,
    prob_given_N: Tensor,
    labels_N: Tensor,
    clean_N: Tensor,
    num_classes: int,
) -> Tensor:
    """Classes of the confident samples of U_GMM, -1 elsewhere (the set P of eq. 4).

    A sample of U_GMM is confident when the probability of its predicted class k exceeds a threshold. The threshold is
    the mean of p_j[k] over the samples j of X_GMM with given label k. A class without samples in X_GMM has no confident
    samples.
    predicted_N: (N,) int64, argmax of the softmax. prob_predicted_N, prob_given_N: (N,) float32, softmax at the
    predicted and at the given label. clean_N: (N,) bool, in X_GMM. Returns (N,) int64.
    """
    members_N = clean_N.to(torch.float64)
    count_K = torch.zeros(num_classes, dtype=torch.float64, device=labels_N.device).index_add_(0, labels_N, members_N)
    total_K = torch.zeros_like(count_K).index_add_(0, labels_N, members_N * prob_given_N.double())
    threshold_K = torch.where(count_K > 0, total_K / count_K.clamp_min(1), torch.inf)
    confident_N = ~clean_N & (prob_predicted_N.double() > threshold_K[predicted_N])
    return torch.where(confident_N, predicted_N, -1)


def cosine_similarity(embeddings_BE: Tensor, prototypes_KE: Tensor) -> Tensor:
    """Cosines between embeddings and prototypes, float32 (B, K)."""
    return F.normalize(embeddings_BE.float(), dim=1) @ F.normalize(prototypes_KE.float(), dim=1).T


def contrastive_loss(embeddings_BE: Tensor, prototypes_KE: Tensor, labels_B: Tensor, temperature: float) -> Tensor:
    """MoPro's prototypical contrastive loss, for ``cpc_only``: cross entropy of cosine similarities over a
    temperature."""
    return F.cross_entropy(cosine_similarity(embeddings_BE, prototypes_KE) / temperature, labels_B)


def _batches(num_samples: int, batch_size: int, passes: int, seed: int) -> list[Tensor]:
    """Index batches of every pass; each pass is a fresh shuffle, filled up to whole batches."""
    index = torch.arange(num_samples)
    return [
        batch for number in range(passes) for batch in shuffled_batches(index, batch_size, generator(seed, number))[0]
    ]


def train_prototypes(
    network: Network,
    optimizer: torch.optim.Optimizer,
    feat_ND: Tensor,
    labels_N: Tensor,
    clean_N: Tensor,
    pseudo_N: Tensor,
    settings: CpcConfig,
    *,
    alpha: float,
    batch_size: int,
    seed: int,
    shard: Shard | None = None,
) -> None:
    """Update the projector and the prototypes by L_C over ``cpc.passes`` shuffled passes of the kept features.

    feat_ND: (N, D) features of this network; with several ranks this one's, (n, D) by ``shard``. labels_N: (N,) int64
    given labels. clean_N: (N,) bool, X_GMM (of the other network's mixture). pseudo_N: (N,) int64, -1 outside P. seed:
    position of this update (run, epoch, network).
    """
    passes = num_passes(settings.passes, len(labels_N), batch_size)
    batches = _batches(len(labels_N), batch_size, passes, seed)
    sets = SampleSets(labels_N, clean_N, pseudo_N, alpha)
    sgd_epoch(network, optimizer, feat_ND, sets, batches, shard or whole_shard(len(labels_N)))


def train_contrastive(
    network: Network,
    optimizer: torch.optim.Optimizer,
    feat_ND: Tensor,
    labels_N: Tensor,
    settings: CpcConfig,
    *,
    batch_size: int,
    seed: int,
    shard: Shard | None = None,
) -> None:
    """The ablation without a GMM (Tab. 5): prototypes by the contrastive objective on all given labels."""
    shard = shard or whole_shard(len(labels_N))
    passes = num_passes(settings.passes, len(labels_N), batch_size)
    position_N, device = shard.positions(), labels_N.device
    for index in _batches(len(labels_N), batch_size, passes, seed):
        own = index if shard.is_whole else index[position_N[index] >= 0]
        index_B = own.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        if len(own):
            embeddings_BE = network.embed(kept_rows(feat_ND, own if shard.is_whole else position_N[own], device))
            loss = contrastive_loss(embeddings_BE, network.prototype_matrix(), labels_N[index_B], settings.temperature)
            (loss if shard.is_whole else loss * (len(own) / len(index))).backward()
        if not shard.is_whole:
            sum_gradients(network.prototype_parameters())
        optimizer.step()


@torch.no_grad()
def prototype_clean_prob(network: Network, feat_ND: Tensor, labels_N: Tensor, *, chunk: int = 65536) -> Tensor:
    """q(z = 0) = sigmoid(v'_i . c_{y_i}) of every sample, float32 (N,), in chunks of rows."""
    return _score_in_chunks(prototype_scores, network, feat_ND, labels_N, chunk).float()


@torch.no_grad()
def contrastive_clean_prob(
    network: Network, feat_ND: Tensor, labels_N: Tensor, temperature: float, *, chunk: int = 65536
) -> Tensor:
    """The score of ``cpc_only``, float32 (N,): the sigmoid of the similarity that its loss uses, cosine over
    temperature."""
    return torch.sigmoid(_score_in_chunks(_own_cosine, network, feat_ND, labels_N, chunk) / temperature)


def _own_cosine(embeddings_BE: Tensor, prototypes_KE: Tensor, labels_B: Tensor) -> Tensor:
    return cosine_similarity(embeddings_BE, prototypes_KE).gather(1, labels_B[:, None])[:, 0]


def _score_in_chunks(
    score: Callable[[Tensor, Tensor, Tensor], Tensor], network: Network, feat_ND: Tensor, labels_N: Tensor, chunk: int
) -> Tensor:
    """score(embeddings, prototypes, labels) of every sample, (N,)."""
    prototypes_KE = network.prototype_matrix()
    parts = [
        score(network.embed(feat_ND[i : i + chunk].to(labels_N.device).float()), prototypes_KE, labels_N[i : i + chunk])
        for i in range(0, max(len(feat_ND), 1), chunk)
    ]
    return torch.cat(parts)


class Prototypes(Cleaner):
    """CPC: prototypes that learn from the partition of the mixture before it."""

    name = "cpc"
    title = "prototypes"
    similarity = "dot"

    def clean(self, data: CleanerInput) -> CleanerResult:
        """Train the projector and the prototypes unless the teacher has a problem, and score all samples."""
        score = partial(prototype_clean_prob, data.network, data.feat_nD, data.own_labels_n)
        if data.teacher is None or data.teacher_problem:
            notes = (f"{data.teacher_problem}; its prototypes stay as they are",)
            return CleanerResult(data.shard.gather(score(), "scores"), notes=notes)
        clean_N = data.teacher.clean_N
        train = partial(
            train_prototypes,
            data.network,
            data.optimizer,
            data.feat_nD,
            data.labels_N,
            clean_N,
            pseudo_labels(
                data.predicted_N, data.prob_predicted_N, data.prob_given_N, data.labels_N, clean_N, data.num_classes
            ),
            data.config.cpc,
            alpha=data.config.cleaner.alpha,
            batch_size=data.config.train.batch_size,
            seed=data.seed("prototypes"),
            shard=data.shard,
        )
        return train_and_score(data, train, score)


class ContrastivePrototypes(Cleaner):
    """The ablation without a mixture (CPC, Tab. 5): prototypes that learn from all given labels."""

    name = "cpc"
    title = "prototypes"
    similarity = "cosine"

    def clean(self, data: CleanerInput) -> CleanerResult:
        """Train the projector and the prototypes, and score all samples."""
        settings = data.config.cpc
        train = partial(
            train_contrastive,
            data.network,
            data.optimizer,
            data.feat_nD,
            data.labels_N,
            settings,
            batch_size=data.config.train.batch_size,
            seed=data.seed("prototypes"),
            shard=data.shard,
        )
        score = partial(contrastive_clean_prob, data.network, data.feat_nD, data.own_labels_n, settings.temperature)
        return train_and_score(data, train, score)


def train_and_score(data: CleanerInput, train: Callable[[], None], score: Callable[[], Tensor]) -> CleanerResult:
    """Train the prototype head and score all samples before or after it (``cpc.score``).

    Features have no bound, so the head can diverge at a learning rate that suits the network. Where weights, momentum
    or scores become NaN or inf, the head and its optimiser are restored, and the result has a problem. Where the scores
    contradict the losses, the result has a note. score: clean probabilities of this rank's samples. Reads the device
    once.
    """
    network = data.network
    network.train()
    before_n = score()
    saved = copy.deepcopy((network.head.state_dict(), data.optimizer.state_dict()))
    train()
    after_N = data.shard.gather(score(), "scores")
    # gathered probabilities, losses and the head are equal on all ranks, and so is the decision
    finite = all_finite([after_N, *network.prototype_parameters(), *momentum_of(data.optimizer)])
    is_finite, contradicts = torch.stack([finite, contradicts_losses(after_N, data.loss_N)]).tolist()
    if not is_finite:
        network.head.load_state_dict(saved[0])
        data.optimizer.load_state_dict(saved[1])
        problem = "its prototypes became NaN or inf and are restored (lower cpc.lr, train.lr or cpc.passes)"
        return CleanerResult(data.shard.gather(before_n, "scores"), problem)
    clean_prob_N = data.shard.gather(before_n, "scores") if data.config.cpc.score == "before_update" else after_N
    return CleanerResult(clean_prob_N, notes=(CONTRADICTION,) if contradicts else ())


def contradicts_losses(clean_prob_N: Tensor, loss_N: Tensor) -> Tensor:
    """Whether prototypes say the opposite of their own network: a sign that they diverged. 0-d bool on the device.

    A low loss means that the network predicts the given label. In runs of ``bench/cifar`` two heads had diverged and
    gave labels below the median loss 0.15 and 0.17 less on average. Heads that had not gave them more. Where all losses
    are equal, the answer is no. clean_prob_N, loss_N: (N,) floating.
    """
    prob_N, low_N = clean_prob_N.double(), (loss_N <= loss_N.median()).double()
    means, variances = [], []
    for half_N in (low_N, 1 - low_N):
        mean = (prob_N * half_N).sum() / half_N.sum()
        means.append(mean)
        variances.append(((prob_N - mean).square() * half_N).sum() / half_N.sum().square())
    margin = (CERTAIN * (variances[0] + variances[1]).sqrt()).clamp_min(INVERTED)
    return means[0] < means[1] - margin
