"""Stage 1: from losses, features and labels of a scoring pass to each network's partition (CPC, Alg. 1, lines 4-9)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fastcpc.cleaner.base import Cleaner, CleanerInput, CleanerResult, class_list
from fastcpc.cleaner.confirmed import always_labelled, with_confirmed
from fastcpc.cleaner.confusion import Confusion
from fastcpc.cleaner.finite import non_finite
from fastcpc.cleaner.guard import guarded, is_nearly_clean, noise_bound
from fastcpc.cleaner.loss_history import append_history, check_finite, min_max
from fastcpc.cleaner.partition import Partition, classes_without_clean, co_divide, partition_problem
from fastcpc.cleaner.registry import cleaners_of
from fastcpc.config.schema import Config
from fastcpc.engine.learner import Learner
from fastcpc.engine.loggers.host_copies import HostCopies
from fastcpc.engine.scoring import ScoringResult
from fastcpc.kernels import GroupOrder, MixtureFit, order_groups


@dataclass
class Cleaning:
    """The result of stage 1 for the M scored samples: all N, or the epoch's pool.

    clean_probs: cleaner's name -> clean probabilities (M,) of network 1's and network 2's cleaner, in the order in
    which they ran. clean_prob_of_network: those of the active cleaner. partition_for: the partition for network 1 and
    for network 2, each by the other network's probabilities. mixtures: per network, the fitted mixtures ("agn",
    "awr"). notes: what the user should know, one line each.
    """

    clean_probs: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    clean_prob_of_network: tuple[Tensor, ...] = ()
    partition_for: list[Partition] = field(default_factory=list)
    mixtures: list[dict[str, MixtureFit]] = field(default_factory=lambda: [{}, {}])
    notes: list[str] = field(default_factory=list)

    def on_host(self, copies: HostCopies) -> "Cleaning":
        """This result with copies of its probabilities and partitions in main memory, for metrics and files."""
        probs = {name: (copies.of(first), copies.of(second)) for name, (first, second) in self.clean_probs.items()}
        parts = [Partition(copies.of(part.clean_N), copies.of(part.clean_prob_N)) for part in self.partition_for]
        active = tuple(copies.of(prob_N) for prob_N in self.clean_prob_of_network)
        return replace(self, clean_probs=probs, clean_prob_of_network=active, partition_for=parts, mixtures=[])


def active_cleaner(config: Config, epoch: int) -> int:
    """Which cleaner of the kind partitions the data in this epoch: the last one, but in cleaner.warmup the one before
    it (CPC, sec. 5.1)."""
    last = len(cleaners_of(config.cleaner.kind)) - 1
    own_warmup = int(config.cleaner.warmup * config.train.epochs + 0.5)
    return max(last - 1, 0) if epoch < config.train.warmup_epochs + own_warmup else last


def clean_labels(
    learners: Sequence[Learner],
    scoring: ScoringResult,
    labels_N: Tensor,
    config: Config,
    *,
    num_classes: int,
    epoch: int,
    order: GroupOrder | None = None,
    confirmed_N: Tensor | None = None,
) -> Cleaning:
    """Run the cleaners, partition the data; changes loss histories, projectors, prototypes and learners' partitions.

    labels_N: of all training samples. order: of labels_N, sorted once per run; used where all samples were scored.
    confirmed_N: (N,) bool, labels that are correct by data.corrections: always in X with weight 1.
    Where a partition must not be trained on, the network keeps its last good one, and a note says why.
    """
    result = Cleaning()
    num_samples, rows = len(labels_N), scoring.rows
    labels_N = labels_N if rows is None else labels_N[rows]
    for learner, scores in zip(learners, scoring.networks, strict=True):
        check_finite(scores.loss_N, learner.number, rows)
    if order is None or rows is not None:
        order = order_groups(labels_N, num_classes)
    confirmed_M = confirmed_N if confirmed_N is None or rows is None else confirmed_N[rows]
    inputs = _inputs(learners, scoring, labels_N, order, config, epoch, confirmed_M)
    active, problems = active_cleaner(config, epoch), ["", ""]
    found: list[CleanerResult] = []
    for place, cleaner in enumerate(cleaners_of(config.cleaner.kind)):
        if found and all(is_nearly_clean(data.teacher, config.cleaner.guard) for data in inputs):
            found = _run(Confusion(), inputs, found)
        else:
            found = _run(cleaner, inputs, found)
        for i, one in enumerate(found):
            result.notes += [f"network {learners[i].number}: {note}" for note in one.notes]
            result.mixtures[i] |= one.mixtures
        probs = found[0].clean_prob_N, found[1].clean_prob_N
        partition_for = co_divide(*probs, config.cleaner.tau)
        # network 1's cleaner partitions network 2's data, so its problem is network 2's
        cleaner_problems = [
            other.problem or partition_problem(partition, labels_N, num_classes)
            for partition, other in zip(partition_for, reversed(found), strict=True)
        ]
        result.clean_probs[cleaner.name] = probs
        if place == active:
            result.clean_prob_of_network, result.partition_for, problems = probs, partition_for, cleaner_problems
        inputs = [
            replace(data, teacher=partition, teacher_problem=problem)
            for data, partition, problem in zip(inputs, partition_for, cleaner_problems, strict=True)
        ]
    _keep_good(learners, result, problems, labels_N, num_classes)
    for learner, partition in zip(learners, result.partition_for, strict=True):
        if rows is not None and learner.partition is partition:
            learner.partition = partition.scatter_to(rows, num_samples)
        if confirmed_N is not None and learner.partition is not None:
            learner.partition = always_labelled(learner.partition, confirmed_N)
    return result


def _run(cleaner: Cleaner, inputs: Sequence[CleanerInput], previous: Sequence[CleanerResult]) -> list[CleanerResult]:
    """Both networks' results of a cleaner. Where it has a problem, those of the previous cleaner take their place."""
    found = []
    for i, data in enumerate(inputs):
        result = with_confirmed(cleaner.clean(data), data)
        if non_finite({"probabilities": [result.clean_prob_N]}):
            problem = result.problem or f"clean probabilities of {cleaner.name} are NaN or infinite (lower train.lr)"
            result = replace(result, clean_prob_N=torch.zeros_like(result.clean_prob_N), problem=problem)
        if result.problem and previous and not previous[i].problem:
            note = f"{result.problem}; the cleaner before it decides in this epoch"
            result = replace(previous[i], notes=(*result.notes, note))
        found.append(guarded(result, data) if data.config.cleaner.guard == "auto" else result)
    return found


def _bound_noise(learners: Sequence[Learner], scoring: ScoringResult, labels_N: Tensor, num_classes: int) -> None:
    """Set the guard's bound of all networks at the first cleaning.

    Both networks have the same labels, so that both bounds are of one share. A network that memorised some wrong labels
    gives too low a bound. So the larger one counts for both.
    """
    if all(learner.noise_bound is None and learner.partition is None for learner in learners):
        bounds = [
            noise_bound(scores.predicted_N, scores.prob_predicted_N, labels_N, num_classes)
            for scores in scoring.networks
        ]
        for learner in learners:
            learner.noise_bound = torch.stack(bounds).amax()


def _inputs(
    learners: Sequence[Learner],
    scoring: ScoringResult,
    labels_N: Tensor,
    order: GroupOrder,
    config: Config,
    epoch: int,
    confirmed_N: Tensor | None,
) -> list[CleanerInput]:
    """What the first cleaner gets of each network; appends to the loss histories where a cleaner uses them."""
    keeps_history = any(cleaner.uses_loss_history for cleaner in cleaners_of(config.cleaner.kind))
    if config.cleaner.guard == "auto":
        _bound_noise(learners, scoring, labels_N, order.num_groups)
    inputs = []
    for learner, scores in zip(learners, scoring.networks, strict=True):
        values_N = min_max(scores.loss_N)
        if keeps_history:
            learner.history_LN = append_history(learner.history_LN, values_N, config.cleaner.loss_history)
            values_N = learner.history_LN.mean(0)
        inputs.append(
            CleanerInput(
                network=learner.eval_network,
                optimizer=learner.cpc_optimizer,
                number=learner.number,
                epoch=epoch,
                config=config,
                num_classes=order.num_groups,
                loss_N=scores.loss_N,
                values_N=values_N,
                predicted_N=scores.predicted_N,
                prob_given_N=scores.prob_given_N,
                prob_predicted_N=scores.prob_predicted_N,
                feat_nD=scores.feat_ND,
                labels_N=labels_N,
                order=order,
                shard=scoring.shard,
                confirmed_N=confirmed_N,
                noise_bound=learner.noise_bound,
            )
        )
    return inputs


def _keep_good(
    learners: Sequence[Learner], result: Cleaning, problems: Sequence[str], labels_N: Tensor, num_classes: int
) -> None:
    """Give each network its partition; where it has a problem, the last good one stays."""
    for learner, partition, problem in zip(learners, result.partition_for, problems, strict=True):
        if problem:
            instead = (
                "trains on all labels as in the warm-up"
                if learner.partition is None
                else "keeps its last good partition"
            )
            result.notes.append(f"network {learner.number}: {problem}; it {instead} in this epoch")
            continue
        learner.partition = partition
        lost = classes_without_clean(partition, labels_N, num_classes)
        if lost:
            result.notes.append(
                f"network {learner.number}: no sample of class {class_list(lost)} is predicted clean; a lower "
                "cleaner.tau or a class-aware cleaner (such as cleaner.kind=cpc_awr) may keep them"
            )
