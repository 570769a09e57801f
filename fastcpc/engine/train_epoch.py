"""Train one network for one epoch: warm-up, or MixMatch with the other network fixed; roll back on NaN.

Everything random in a step is a function of (run seed, epoch, network, step), so a pass can resume at any step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fastcpc import distributed
from fastcpc.cleaner.finite import describe_bad_batch
from fastcpc.cleaner.guard import is_nearly_clean
from fastcpc.config.names import CLEANER_KINDS, DATASETS
from fastcpc.config.schema import Config
from fastcpc.data.loaders.base import Loader, ViewName
from fastcpc.data.rng import fold, generator
from fastcpc.data.sampler import draw_pool, shuffled_batches
from fastcpc.engine.learner import LOSS_NAMES, Learner
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.optim.learning_rate import learning_rate, steps_of_epoch
from fastcpc.engine.outputs.flops import ImageFlops
from fastcpc.engine.step_loop import StepLoop
from fastcpc.errors import RunError
from fastcpc.kernels import GroupOrder, order_groups
from fastcpc.models.folding import FoldedNetwork, fold_batchnorm
from fastcpc.models.network import Network
from fastcpc.models.random_layers import may_draw
from fastcpc.semisup.fixed_guesses import FixedGuesses, fixed_logits
from fastcpc.semisup.losses import ramp
from fastcpc.semisup.mixmatch import semisup_loss, warm_up_loss
from fastcpc.semisup.mixup import Partners, find_partners, sample_lambda

MAX_ROLLBACKS = 3  # consecutive passes of a network that may be rolled back for non-finite values
GUESS_BATCH = 2048  # images per batch of the fixed network's guesses


@dataclass(frozen=True)
class TrainContext:
    """What every training pass needs.

    labels_N: given labels, (N,) int64 on the device. flops: None: unknown. confirmed_N: (N,) bool on the device, labels
    that data.corrections confirms; None without corrections.
    """

    config: Config
    numerics: Numerics
    loader: Loader
    labels_N: Tensor
    num_classes: int
    flops: ImageFlops | None = None
    confirmed_N: Tensor | None = None

    @cached_property
    def label_order(self) -> GroupOrder:
        """The samples sorted by given label, computed once per run: given labels never change."""
        return order_groups(self.labels_N, self.num_classes)

    def learning_rate(self, progress: float) -> float:
        """The learning rate at a point of the run, in epochs from 0 with their fraction."""
        return learning_rate(progress, self.config.train, self.steps_per_epoch)

    def folded(self, network: Network) -> FoldedNetwork | None:
        """The run's folded network, made of the first one given; None on a CPU, where folding saves no time."""
        if self.numerics.device.type != "cuda":
            return None
        if not self._folded:
            folded = fold_batchnorm(network, self.numerics.dtype)
            if folded is not None:
                self.numerics.prepare(folded)
            self._folded.append(folded)
        return self._folded[0]

    @cached_property
    def _folded(self) -> list[FoldedNetwork | None]:
        return []

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch of cross entropy, for one network."""
        return steps_of_epoch(len(self.labels_N), self.config.train)

    def seed(self, purpose: str, epoch: int, learner: Learner) -> int:
        """Seed for a purpose ("views", "order", ...) in this epoch for this network."""
        return fold(self.config.run.seed, purpose, epoch, learner.number)

    def pool(self, rows: Tensor, seed: int) -> Tensor:
        """The epoch's pool of these samples (int64, on the CPU): ``train.pool_batches`` batches, or all samples."""
        train = self.config.train
        if not train.pool_batches or not len(rows):
            return rows
        num = train.pool_batches * train.batch_size
        return rows[draw_pool(self.labels_N.cpu()[rows], num, generator(seed), balanced=train.pool_balanced)]

    def scored(self, epoch: int) -> Tensor | None:
        """The samples that this epoch scores and partitions, for both networks; None: all samples."""
        if self.config.cleaner.scored == "all":
            return None
        return self.pool(torch.arange(len(self.labels_N)), fold(self.config.run.seed, "pool", epoch))

    def warm_up_rows(self, own: Learner, epoch: int) -> Tensor:
        """The samples of this network's warm-up epoch."""
        return self.pool(torch.arange(len(self.labels_N)), self.seed("pool", epoch, own))


@dataclass(frozen=True)
class PassResult:
    """How a pass ended.

    num_labelled: samples trained on with their given labels. means: mean losses in the order of LOSS_NAMES; None each
    after a rollback, which ``note`` explains. flops: of the pass; None: unknown.
    """

    num_labelled: int
    means: tuple[float | None, ...]
    flops: int | None
    note: str = ""


def train_epoch(
    own: Learner, other: Learner | None, training: TrainContext, step_loop: StepLoop, epoch: int, start: int
) -> int:
    """Train network ``own`` for one epoch from step ``start`` on (Alg. 1, stage 2); returns the steps of a whole pass.

    other: the fixed network that guesses labels; None in warm-up. Without a partition, warm-up is used too.
    """
    own.steps = []
    if other is None or own.partition is None:
        return warm_up(own, training, step_loop, epoch=epoch, start=start)
    if is_nearly_clean(own.partition, training.config.cleaner.guard):
        rows = training.pool(own.partition.labelled, training.seed("pool of X", epoch, own))
        return supervised(own, training, step_loop, rows, "train", penalty=False, epoch=epoch, start=start)
    return semi_supervised(own, other, training, step_loop, epoch=epoch, start=start)


def warm_up(own: Learner, training: TrainContext, step_loop: StepLoop, *, epoch: int, start: int) -> int:
    """One epoch of cross entropy on all given labels, or those of the pool; returns the number of steps."""
    rows, penalty = training.warm_up_rows(own, epoch), has_warmup_penalty(training.config)
    return supervised(own, training, step_loop, rows, "warm-up", penalty, epoch=epoch, start=start)


def supervised(
    own: Learner,
    training: TrainContext,
    step_loop: StepLoop,
    rows: Tensor,
    title: str,
    penalty: bool,
    *,
    epoch: int,
    start: int,
) -> int:
    """One epoch of cross entropy on the given labels of these samples; returns the number of steps.

    rows: (n,) int64 on the CPU. title: of the progress line. penalty: whether the confidence penalty is added.
    """
    config, numerics = training.config, training.numerics
    order = generator(training.seed("order", epoch, own))
    batches, _ = shuffled_batches(rows, config.train.batch_size, order)
    views: tuple[ViewName, ...] = (config.augment.warmup,)
    part = own_part(config.train.batch_size, 1)
    stream = training.loader.stream(batches, views, training.seed("views", epoch, own), start, part)
    steps_seed = training.seed("step", epoch, own)
    own.network.train()
    draws = may_draw(own.network)
    for step, batch in step_loop.train_steps(f"{title} net {own.number}", stream, len(batches), num_views=1):
        if draws:
            torch.manual_seed(layers_seed(steps_seed, step))
        own.set_learning_rate(training.learning_rate(epoch + step / len(batches)))
        with numerics.autocast():
            loss = numerics.step(warm_up_loss)(own.network, batch.views[0], training.labels_N[batch.index], penalty)
        own.update((loss,), batch.index)
    return len(batches)


def has_warmup_penalty(config: Config) -> bool:
    """Whether warm-up adds the confidence penalty; never with ``cleaner.kind=none``, the plain baseline."""
    if not CLEANER_KINDS[config.cleaner.kind]:
        return False
    wanted = config.train.warmup_penalty
    return wanted == "always" or (wanted == "auto" and config.noise.kind not in ("none", "sym"))


def semi_supervised(
    own: Learner, other: Learner, training: TrainContext, step_loop: StepLoop, *, epoch: int, start: int
) -> int:
    """One MixMatch epoch of network ``own`` on its partition, ``other`` fixed; returns the number of steps."""
    config, numerics, partition = training.config, training.numerics, own.partition
    assert partition is not None
    batches = paired_batches(own, training, epoch)
    batch_size = config.train.batch_size
    # plain DivideMix also trains on the weak views from which it guesses labels
    num_views = config.semisup.views
    kinds: tuple[ViewName, ...] = ("weak",) if config.augment.train == "weak" else ("weak", "strong")
    views = [kind for kind in kinds for _ in range(num_views)]
    stream = training.loader.stream(batches, views, training.seed("views", epoch, own), start, own_part(batch_size, 2))
    steps_seed = training.seed("step", epoch, own)
    num_own = batch_size // distributed.world_size()
    own.network.train()
    draws = may_draw(own.network)
    guesser = None if own.average is None else own.average.network.eval()  # cleaning left it in train mode
    guesses = FixedGuesses(
        fixed_guess(other, training), num_own, steps_ahead(config, numerics, num_own), start, num_views
    )
    stream = guesses.batches(stream)
    for step, batch in step_loop.train_steps(f"train net {own.number}", stream, len(batches), num_views=num_views):
        if draws:
            torch.manual_seed(layers_seed(steps_seed, step))
        draw = generator(steps_seed, "mixup", step)
        labelled_B = batch.index[:num_own]
        progress = epoch + step / len(batches)
        own.set_learning_rate(training.learning_rate(progress))
        weight_u = config.semisup.lambda_u * ramp(progress, config.train.warmup_epochs, config.semisup.rampup_epochs)
        lam = sample_lambda(config.semisup.mixup_alpha, draw)
        partners = draw_partners(config, draw, numerics.device)
        other_logits = guesses.next_logits()
        with numerics.autocast():
            losses = numerics.step(semisup_loss)(
                own.network,
                other_logits,
                batch.views[:num_views],
                batch.views[-num_views:],
                training.labels_N[labelled_B],
                # NaN: a replacement image from outside the pool, which has no clean probability; its label is not used
                partition.clean_prob_N[labelled_B].nan_to_num(0.0),
                torch.tensor(lam).to(numerics.device, non_blocking=True),
                partners,
                torch.tensor(weight_u).to(numerics.device, non_blocking=True),
                config.semisup,
                training.num_classes,
                guesser,
            )
        own.update((losses.total, losses.labelled, losses.unlabelled, losses.penalty), batch.index)
    return len(batches)


def fixed_guess(other: Learner, training: TrainContext) -> Callable[[Tensor], Tensor]:
    """Logits of the fixed network as a function of images; folded on a GPU, as the network is now."""
    numerics, network = training.numerics, other.eval_network.eval()
    folded = training.folded(network)
    if folded is not None:
        folded.load(network)

    def guess(images: Tensor) -> Tensor:
        with torch.no_grad(), numerics.autocast():
            logits = numerics.inference(fixed_logits)(folded or network, images)
        return logits if numerics.compile == "false" else logits.clone()  # the next run of a CUDA graph overwrites it

    return guess


def steps_ahead(config: Config, numerics: Numerics, num_unlabelled: int) -> int:
    """For how many steps the fixed network guesses at once: on a GPU more than one, where images are in its memory.

    num_unlabelled: samples per step on this rank, semisup.views views each.
    """
    if numerics.device.type != "cuda" or DATASETS[config.data.name].kind != "arrays":
        return 1
    return max(1, GUESS_BATCH // (config.semisup.views * num_unlabelled))


def own_part(batch_size: int, num_parts: int) -> Tensor | None:
    """Positions of this rank's samples in a global batch of ``num_parts`` x batch_size; None: all positions."""
    if distributed.world_size() == 1:
        return None
    own = distributed.own_slice(batch_size)
    return torch.cat([part * batch_size + own for part in range(num_parts)])


def layers_seed(steps_seed: int, step: int) -> int:
    """Seed of dropout and other random layers in a step; each rank has its own, because its samples differ."""
    return fold(steps_seed, step) if distributed.world_size() == 1 else fold(steps_seed, step, distributed.rank())


def draw_partners(config: Config, draw: torch.Generator, device: torch.device) -> Partners:
    """MixUp partners of a step: from a permutation of the global batch, or of each rank's share."""
    blocks = 2 * config.semisup.views
    mixed_blocks = blocks // 2 if config.semisup.labelled_half_only else blocks
    if config.parallel.mixup == "global" or not distributed.has_group():
        batch_size = config.train.batch_size
        permutation = torch.randperm(blocks * batch_size, generator=draw)
        return find_partners(permutation, blocks, mixed_blocks * batch_size, device)
    num_own = config.train.batch_size // distributed.world_size()
    # every rank draws all seeds and uses its own, so that the generator's state stays equal on all ranks
    seeds = torch.randint(2**62, (distributed.world_size(),), generator=draw)
    permutation = torch.randperm(blocks * num_own, generator=generator(int(seeds[distributed.rank()])))
    return Partners(permutation[: mixed_blocks * num_own].to(device, non_blocking=True))


def paired_batches(own: Learner, training: TrainContext, epoch: int) -> list[Tensor]:
    """Index batches of 2B: B of X, then B of U; one pass over X (or semisup.batches_per_epoch), U cycled.

    With train.pool_batches, X and U are the epoch's pools. If U has fewer than B samples (clean data), its half is
    drawn from all scored samples. The same few images in every batch would distort BatchNorm, and guessing a label for
    a clean sample does no harm.
    """
    config, partition = training.config, own.partition
    assert partition is not None
    order = generator(training.seed("order", epoch, own))
    batch_size = config.train.batch_size
    labelled, unlabelled = partition.labelled, partition.unlabelled
    if len(unlabelled) < batch_size:
        unlabelled = partition.scored
    labelled = training.pool(labelled, training.seed("pool of X", epoch, own))
    unlabelled = training.pool(unlabelled, training.seed("pool of U", epoch, own))
    labelled_batches, _ = shuffled_batches(labelled, batch_size, order, config.semisup.batches_per_epoch or None)
    unlabelled_batches, _ = shuffled_batches(unlabelled, batch_size, order, len(labelled_batches))
    return [torch.cat(pair) for pair in zip(labelled_batches, unlabelled_batches, strict=True)]


def start_note(own: Learner, other: Learner | None, training: TrainContext, epoch: int) -> str:
    """A note on an unusual partition at the start of a pass, or an empty string."""
    if other is None or own.partition is None or is_nearly_clean(own.partition, training.config.cleaner.guard):
        return ""
    batch_size = training.config.train.batch_size
    if len(own.partition.unlabelled) >= batch_size:
        return ""
    return (
        f"epoch {epoch}, network {own.number}: fewer than train.batch_size={batch_size} samples are predicted noisy; "
        "drawing unlabelled batches from all scored samples"
    )


def finish_pass(
    own: Learner, other: Learner | None, training: TrainContext, snapshot: dict[str, Any], epoch: int, steps: int
) -> PassResult:
    """Read the mean losses of a pass. Restore the snapshot if losses or any learned part are not finite.

    steps: of the whole pass. RunError after more than MAX_ROLLBACKS rollbacks in a row.
    """
    if other is None or own.partition is None:
        num_labelled = len(training.warm_up_rows(own, epoch))
    else:
        num_labelled = int(own.partition.clean_N.sum())
    flops = pass_flops(own, other, training, steps)
    distributed.all_reduce_mean(own.sums, "losses")
    broken = own.non_finite_parts()
    if not broken:
        own.rollbacks, own.steps = 0, []
        return PassResult(num_labelled, tuple((own.sums / steps).tolist()), flops)
    own.rollbacks += 1
    where, what = describe_bad_batch(own.steps, steps), ", ".join(broken)
    own.steps = []
    if own.rollbacks > MAX_ROLLBACKS:
        raise RunError(
            f"epoch {epoch}, network {own.number}: NaN or infinite {what} in {own.rollbacks} consecutive passes"
            f"{where}; start a new run (another run.dir) with a lower train.lr (now {training.config.train.lr:g}), or "
            "with precision=fp32"
        )
    own.restore(snapshot)
    note = (
        f"epoch {epoch}, network {own.number}: {what} became NaN or infinite{where}; the network and its optimiser are "
        "restored to their state before this pass; if this repeats, lower train.lr"
    )
    return PassResult(num_labelled, (None,) * len(LOSS_NAMES), flops, note)


def pass_flops(own: Learner, other: Learner | None, training: TrainContext, steps: int) -> int | None:
    """FLOPs of all steps of a pass on all ranks; None: unknown.

    A step of MixMatch takes B labelled and B unlabelled samples, V views each (semisup.views). The fixed network
    guesses for V B views, the trained network for 2V B. It trains on 2V B mixed views, or on V B (labelled_half_only).
    """
    config, flops = training.config, training.flops
    if flops is None:
        return None
    if other is None or own.partition is None or is_nearly_clean(own.partition, config.cleaner.guard):
        return steps * config.train.batch_size * flops.training
    num_views = config.semisup.views
    trained = num_views if config.semisup.labelled_half_only else 2 * num_views
    return steps * config.train.batch_size * (3 * num_views * flops.forward + trained * flops.training)
