"""Stage 1: from losses, features and labels of a scoring pass to each network's partition (CPC, Alg. 1, lines 4-9)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fastcpc.cleaner.gmm import fit_of, gmm_posterior
from fastcpc.cleaner.loss_history import append_history, check_finite, min_max
from fastcpc.cleaner.partition import Partition, co_divide, lost_classes, partition_problem
from fastcpc.cleaner.prototypes import (
    contrastive_clean_prob,
    prototype_clean_prob,
    pseudo_labels,
    train_contrastive,
    train_prototypes,
)
from fastcpc.config.schema import Config
from fastcpc.data.rng import fold
from fastcpc.engine.learner import Learner
from fastcpc.engine.scoring import ScoringResult
from fastcpc.kernels import GroupOrder, order_groups


@dataclass
class Cleaning:
    """What stage 1 found.

    All of it is of the samples that were scored, M of them: all N, or the epoch's pool.

    q_gmm, q_cpc: clean probabilities (M,) by network 1's and network 2's cleaner, None where the cleaner is not in use.
    ruling: those of the two that divide the data. partitions: of network 1's and of network 2's data, each by the other
    network's probabilities. notes: what the user should know, a line each.
    """

    q_gmm: tuple[Tensor, Tensor] | None = None
    q_cpc: tuple[Tensor, Tensor] | None = None
    partitions: list[Partition] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def clean_probs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Clean probabilities (M,) by network 1 and 2 of each cleaner in use, by its name; the mixture first."""
        return {name: q for name, q in (("gmm", self.q_gmm), ("cpc", self.q_cpc)) if q is not None}

    @property
    def active_prob(self) -> list[Tensor]:
        """The probabilities that divided the data, by network 1's and network 2's cleaner."""
        return [partition.clean_prob_N for partition in reversed(self.partitions)]


def gmm_is_active(config: Config, epoch: int) -> bool:
    """Whether the mixture, not CPC, divides the data in this epoch: for cpc_* in its own warm-up (CPC, sec. 5.1)."""
    if config.cleaner.kind.startswith("gmm"):
        return True
    own_warmup = int(config.cleaner.warmup * config.train.epochs + 0.5)
    return config.cleaner.kind != "cpc_only" and epoch < config.train.warmup_epochs + own_warmup


def clean_labels(
    learners: Sequence[Learner],
    scoring: ScoringResult,
    labels_N: Tensor,
    config: Config,
    *,
    num_classes: int,
    epoch: int,
    order: GroupOrder | None = None,
) -> Cleaning:
    """Fit the mixtures, update the prototypes, divide the data; changes loss histories, projectors and prototypes.

    labels_N: of all training samples, whichever of them were collected. order: of labels_N, sorted once for a run;
    used where all were collected.
    A partition that must not be trained on leaves the network's last good one in place, and a note says why.
    """
    result = Cleaning()
    num_samples, rows = len(labels_N), scoring.rows
    labels_N = labels_N if rows is None else labels_N[rows]
    kind, tau = config.cleaner.kind, config.cleaner.tau
    for learner, scores in zip(learners, scoring.networks, strict=True):
        check_finite(scores.loss_N, learner.number, rows)
    problems = ["", ""]
    if kind != "cpc_only":
        if order is None or rows is not None:
            order = order_groups(labels_N, num_classes)
        q_gmm, fitted = _mixtures(learners, scoring, labels_N, order, config, result.notes)
        result.q_gmm, result.partitions = q_gmm, co_divide(*q_gmm, tau)
        # network 1's mixture divides network 2's data, so that a mixture without a fit is the other network's fault
        problems = [
            partition_problem(part, labels_N, num_classes, fitted=ok)
            for part, ok in zip(result.partitions, reversed(fitted), strict=True)
        ]
    if kind.startswith("cpc"):
        result.notes += [
            f"network {learner.number}: {problem}; its prototypes stay as they are"
            for learner, problem in zip(learners, problems, strict=True)
            if problem
        ]
        q_cpc = _prototypes(learners, scoring, labels_N, config, num_classes, epoch, result.partitions, problems)
        result.q_cpc = q_cpc
        if not gmm_is_active(config, epoch):
            result.partitions = co_divide(*q_cpc, tau)
            problems = [partition_problem(part, labels_N, num_classes) for part in result.partitions]
    _keep_good(learners, result, problems, labels_N, num_classes)
    for learner, partition in zip(learners, result.partitions, strict=True):
        if rows is not None and learner.partition is partition:
            learner.partition = partition.scatter_to(rows, num_samples)
    return result


def _mixtures(
    learners: Sequence[Learner],
    scoring: ScoringResult,
    labels_N: Tensor,
    order: GroupOrder,
    config: Config,
    notes: list[str],
) -> tuple[tuple[Tensor, Tensor], list[bool]]:
    """Each network's posterior on its own (smoothed) losses, and whether there was a fit at all."""
    posteriors, fitted = [], []
    fit_mixtures = fit_of(config.parallel.mixture, scoring.shard)
    for learner, scores in zip(learners, scoring.networks, strict=True):
        learner.history_LN = append_history(learner.history_LN, min_max(scores.loss_N), config.cleaner.loss_history)
        values_N = learner.history_LN.mean(0)
        posterior = gmm_posterior(config.cleaner.kind, values_N, labels_N, order.num_groups, order, fit_mixtures)
        if posterior.fallback_classes:
            notes.append(
                f"network {learner.number}: classes {_named(posterior.fallback_classes)} have too few or constant "
                "losses for a "
                "mixture of their own; they take the one of all classes"
            )
        posteriors.append(posterior.clean_prob_N)
        fitted.append(posterior.fitted)
    return (posteriors[0], posteriors[1]), fitted


def _prototypes(
    learners: Sequence[Learner],
    scoring: ScoringResult,
    labels_N: Tensor,
    config: Config,
    num_classes: int,
    epoch: int,
    taught_by: Sequence[Partition],
    problems: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """Each network's CPC score, after (or before) the update of its projector and prototypes by the mixture's
    partition."""
    cpc, batch_size, shard = config.cpc, config.train.batch_size, scoring.shard
    own_labels = labels_N if shard.is_whole else labels_N[shard.rows.to(labels_N.device)]
    result = []
    for i, (learner, scores) in enumerate(zip(learners, scoring.networks, strict=True)):
        network, seed = learner.network, fold(config.run.seed, "prototypes", epoch, learner.number)
        network.train()
        if config.cleaner.kind == "cpc_only":
            before = contrastive_clean_prob(network, scores.feat_ND, own_labels, cpc.temperature)
            train_contrastive(
                network, learner.cpc_optimizer, scores.feat_ND, labels_N, cpc, batch_size=batch_size, seed=seed,
                shard=shard,
            )  # fmt: skip
            after = contrastive_clean_prob(network, scores.feat_ND, own_labels, cpc.temperature)
        else:
            before = prototype_clean_prob(network, scores.feat_ND, own_labels)
            if not problems[i]:
                clean_N = taught_by[i].clean_N
                pseudo_N = pseudo_labels(
                    scores.predicted_N, scores.prob_predicted_N, scores.prob_given_N, labels_N, clean_N, num_classes
                )
                train_prototypes(
                    network,
                    learner.cpc_optimizer,
                    scores.feat_ND,
                    labels_N,
                    clean_N,
                    pseudo_N,
                    cpc,
                    alpha=config.cleaner.alpha,
                    batch_size=batch_size,
                    seed=seed,
                    shard=shard,
                )
            after = prototype_clean_prob(network, scores.feat_ND, own_labels)
        result.append(shard.gather(before if cpc.score == "before_update" else after, "scores"))
    return result[0], result[1]


def _keep_good(
    learners: Sequence[Learner], result: Cleaning, problems: Sequence[str], labels_N: Tensor, num_classes: int
) -> None:
    """Hand each network its partition, unless it is no good: then the last good one stays."""
    for learner, partition, problem in zip(learners, result.partitions, problems, strict=True):
        if problem:
            instead = (
                "trains on all labels as in the warm-up"
                if learner.partition is None
                else "keeps its last good partition"
            )
            result.notes.append(f"network {learner.number}: {problem}; it {instead} in this epoch")
            continue
        learner.partition = partition
        lost = lost_classes(partition, labels_N, num_classes)
        if lost:
            result.notes.append(
                f"network {learner.number}: no sample of class {_named(lost)} is held clean; a class-aware cleaner "
                "(cleaner.kind=cpc_awr) or a lower cleaner.tau may keep them"
            )


def _named(classes: Sequence[int], most: int = 10) -> str:
    return ", ".join(str(k) for k in classes[:most]) + (", ..." if len(classes) > most else "")
