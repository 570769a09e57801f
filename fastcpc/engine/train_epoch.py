"""Training of both networks in an epoch: warm-up pass, MixMatch pass, and their order (``Alternating``).

Everything random in a step is a function of (run seed, epoch, network, step), so a pass can resume at any step. A pass
with NaN/inf losses or weights is rolled back to the snapshot that its beginning leaves in the run state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from fastcpc import distributed
from fastcpc.config.schema import Config
from fastcpc.data.loaders.base import Loader, ViewName
from fastcpc.data.rng import fold, generator
from fastcpc.data.sampler import draw_pool, shuffled_batches
from fastcpc.engine.learner import LOSS_NAMES, Learner
from fastcpc.engine.loggers.run_log import RunLog
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.optim import learning_rate
from fastcpc.engine.run_state import RunState
from fastcpc.engine.step_loop import StepLoop, Stopped
from fastcpc.kernels import GroupOrder, order_groups
from fastcpc.semisup.losses import ramp
from fastcpc.semisup.mixmatch import semisup_loss, warm_up_loss
from fastcpc.semisup.mixup import Partners, find_partners, sample_lambda

Stage = tuple[str, Callable[[], None]]
"""A stage of an epoch: the name in the record's seconds, and what it does."""


@dataclass(frozen=True)
class TrainContext:
    """What every training stage needs: settings, numerics, the training loader and the given labels, int64 (N,), on
    the device."""

    config: Config
    numerics: Numerics
    loader: Loader
    labels_N: Tensor
    num_classes: int

    @cached_property
    def label_order(self) -> GroupOrder:
        """The samples sorted by given label, once a run: these labels never change."""
        return order_groups(self.labels_N, self.num_classes)

    def seed(self, purpose: str, epoch: int, learner: Learner) -> int:
        """Seed of a purpose ("views", "order", ...) in this epoch, for this network."""
        return fold(self.config.run.seed, purpose, epoch, learner.number)

    def pool(self, rows: Tensor, seed: int) -> Tensor:
        """What an epoch draws of these samples (int64, on the CPU): ``train.pool_batches`` batches, or all of them."""
        train = self.config.train
        if not train.pool_batches or not len(rows):
            return rows
        num = train.pool_batches * train.batch_size
        return rows[draw_pool(self.labels_N.cpu()[rows], num, generator(seed), balanced=train.pool_balanced)]

    def scored(self, epoch: int) -> Tensor | None:
        """The samples that this epoch scores and divides, for both networks; None: all of them."""
        if self.config.cleaner.scored == "all":
            return None
        return self.pool(torch.arange(len(self.labels_N)), fold(self.config.run.seed, "pool", epoch))

    def warm_up_rows(self, own: Learner, epoch: int) -> Tensor:
        """The samples of a warm-up epoch of this network."""
        return self.pool(torch.arange(len(self.labels_N)), self.seed("pool", epoch, own))


@dataclass(frozen=True)
class PassResult:
    """num_labelled: samples trained on with their given labels. means: mean losses in the order of LOSS_NAMES, None for
    each if the pass was rolled back; ``note`` then says why."""

    num_labelled: int
    means: tuple[float | None, ...]
    note: str = ""


class Schedule:
    """The training stages of an epoch; one implementation for each value of ``parallel.mode``."""

    note = ""  # for the start line of a run

    def __init__(self, context: TrainContext, step_loop: StepLoop, run_state: RunState, log: RunLog) -> None:
        self.context, self.step_loop, self.run_state, self.log = context, step_loop, run_state, log

    @classmethod
    def check_ranks(cls) -> None:
        """InputError if this number of ranks is impossible."""

    @classmethod
    def connect_ranks(cls) -> None:
        """Open further process groups, after ``distributed.connect``; every rank calls."""

    def stages(self, epoch: int, *pairs: tuple[Learner, Learner | None]) -> list[Stage]:
        """Stages that train each pair's first network, guided by its second; the second is None in the warm-up."""
        raise NotImplementedError

    def begin_pass(self, own: Learner, other: Learner | None, epoch: int) -> dict[str, Any]:
        """Reset the losses, log what is unusual, return the snapshot to roll back to."""
        own.sums.zero_()
        note = start_note(own, other, self.context, epoch)
        if note:
            self.log.info(note)
        return own.snapshot()

    def record_pass(self, result: PassResult) -> None:
        """Add a pass's result to the epoch's record; log a rollback."""
        if result.note:
            self.log.warning(result.note)
        record = self.run_state.record
        record.setdefault("labelled", []).append(result.num_labelled)
        for name, value in zip(LOSS_NAMES, result.means, strict=True):
            record.setdefault(f"loss_{name}", []).append(value)
        self.run_state.snapshot = {}


class Alternating(Schedule):
    """Algorithm 1: one network after the other, each guided by the other as it is then; all ranks train together."""

    def stages(self, epoch: int, *pairs: tuple[Learner, Learner | None]) -> list[Stage]:
        return [("train", partial(self.train, own, other, epoch)) for own, other in pairs]

    def train(self, own: Learner, other: Learner | None, epoch: int) -> None:
        """Stage 2 of one network with the other fixed; other: None in the warm-up."""
        run_state = self.run_state
        if run_state.step == 0:
            run_state.snapshot = self.begin_pass(own, other, epoch)
        try:
            steps = train_epoch(own, other, self.context, self.step_loop, epoch, run_state.step)
        except Stopped:
            distributed.all_reduce_mean(own.sums, "losses")  # the checkpoint holds one sum, which all ranks resume from
            raise
        self.record_pass(finish_pass(own, other, self.context, run_state.snapshot, epoch, steps))


def train_epoch(
    own: Learner, other: Learner | None, context: TrainContext, step_loop: StepLoop, epoch: int, start: int
) -> int:
    """One network's pass from step ``start`` on; a warm-up pass if there is no partition yet. Returns the number of
    steps of the whole pass."""
    own.steps = []
    if other is None or own.partition is None:
        return warm_up(own, context, step_loop, epoch=epoch, start=start)
    return semi_supervised(own, other, context, step_loop, epoch=epoch, start=start)


def start_note(own: Learner, other: Learner | None, context: TrainContext, epoch: int) -> str:
    """What is unusual about a pass that begins; empty if nothing is."""
    if other is None or own.partition is None or len(own.partition.unlabelled) >= context.config.train.batch_size:
        return ""
    return (
        f"epoch {epoch}, network {own.number}: almost no sample is predicted noisy; drawing unlabelled batches from "
        "all scored samples"
    )


def finish_pass(
    own: Learner, other: Learner | None, context: TrainContext, snapshot: dict[str, Any], epoch: int, steps: int
) -> PassResult:
    """Mean losses of a pass of this many steps; roll the network back if they or the weights are NaN/inf.

    RunError after too many rollbacks in a row.
    """
    if other is None or own.partition is None:
        num_labelled = len(context.warm_up_rows(own, epoch))
    else:
        num_labelled = int(own.partition.clean_N.sum())
    means, note = own.finish_pass(snapshot, epoch, steps)
    return PassResult(num_labelled, means, note)


def warm_up(own: Learner, context: TrainContext, step_loop: StepLoop, *, epoch: int, start: int) -> int:
    """One epoch of cross entropy on the given labels of all samples, or of the epoch's pool, from step ``start`` on.
    Returns the number of steps of the epoch."""
    config, numerics = context.config, context.numerics
    order = generator(context.seed("order", epoch, own))
    batches, _ = shuffled_batches(context.warm_up_rows(own, epoch), config.train.batch_size, order)
    views: tuple[ViewName, ...] = (config.augment.warmup,)
    part = own_part(config.train.batch_size, 1)
    stream = context.loader.stream(batches, views, context.seed("views", epoch, own), start, part)
    steps_seed = context.seed("step", epoch, own)
    penalty = has_warmup_penalty(config)
    own.network.train()
    for step, batch in step_loop.train_steps(f"warm-up net {own.number}", stream, len(batches), num_views=1):
        torch.manual_seed(layers_seed(steps_seed, step))
        own.set_learning_rate(learning_rate(epoch + step / len(batches), config.train))
        with numerics.autocast():
            loss = numerics.step(warm_up_loss)(own.network, batch.views[0], context.labels_N[batch.index], penalty)
        own.update((loss,), batch.index)
    return len(batches)


def has_warmup_penalty(config: Config) -> bool:
    """Whether warm-up adds the confidence penalty; never in plain training (``cleaner.kind=none``), the baseline."""
    if config.cleaner.kind == "none":
        return False
    wanted = config.train.warmup_penalty
    return wanted == "always" or (wanted == "auto" and config.noise.kind not in ("none", "sym"))


def semi_supervised(
    own: Learner, other: Learner, context: TrainContext, step_loop: StepLoop, *, epoch: int, start: int
) -> int:
    """One MixMatch epoch of network ``own`` on its partition, with ``other`` fixed, from step ``start`` on. Returns the
    number of steps of the epoch."""
    config, numerics, partition = context.config, context.numerics, own.partition
    assert partition is not None
    batches = paired_batches(own, context, epoch)
    batch_size = config.train.batch_size
    # plain DivideMix: the two weak views that labels are guessed from are also trained on
    views: tuple[ViewName, ...] = (
        ("weak", "weak") if config.augment.train == "weak" else ("weak", "weak", "strong", "strong")
    )
    stream = context.loader.stream(batches, views, context.seed("views", epoch, own), start, own_part(batch_size, 2))
    steps_seed = context.seed("step", epoch, own)
    num_own = batch_size // distributed.world_size()
    own.network.train()
    other.network.eval()
    for step, batch in step_loop.train_steps(f"train net {own.number}", stream, len(batches), num_views=2):
        torch.manual_seed(layers_seed(steps_seed, step))
        draw = generator(steps_seed, "mixup", step)
        labelled_B = batch.index[:num_own]
        progress = epoch + step / len(batches)
        own.set_learning_rate(learning_rate(progress, config.train))
        weight_u = config.semisup.lambda_u * ramp(progress, config.train.warmup_epochs, config.semisup.rampup_epochs)
        lam = sample_lambda(config.semisup.mixup_alpha, draw)
        partners = draw_partners(config, draw, numerics.device)
        with numerics.autocast():
            losses = numerics.step(semisup_loss)(
                own.network,
                other.network,
                (batch.views[0], batch.views[1]),
                (batch.views[-2], batch.views[-1]),
                context.labels_N[labelled_B],
                # a sample outside the pool stands in for one that cannot be read: its label is not believed
                partition.clean_prob_N[labelled_B].nan_to_num(0.0),
                torch.tensor(lam).to(numerics.device, non_blocking=True),
                partners,
                torch.tensor(weight_u).to(numerics.device, non_blocking=True),
                config.semisup,
                context.num_classes,
            )
        own.update((losses.total, losses.labelled, losses.unlabelled, losses.penalty), batch.index)
    return len(batches)


def own_part(batch_size: int, num_halves: int) -> Tensor | None:
    """Positions of this rank's samples in a global batch of ``num_halves`` x batch_size; None: all of them."""
    if distributed.world_size() == 1:
        return None
    own = distributed.own_slice(batch_size)
    return torch.cat([half * batch_size + own for half in range(num_halves)])


def layers_seed(steps_seed: int, step: int) -> int:
    """Seed of what layers draw in a step, dropout and the like: on each rank its own, as each has other samples."""
    return fold(steps_seed, step) if distributed.world_size() == 1 else fold(steps_seed, step, distributed.rank())


def draw_partners(config: Config, draw: torch.Generator, device: torch.device) -> Partners:
    """MixUp's partners in a step: by a permutation of the global batch, or of each rank's share by itself."""
    blocks, mixed_blocks = 4, 2 if config.semisup.labelled_half_only else 4
    if config.parallel.mixup == "global" or distributed.world_size() == 1:
        batch_size = config.train.batch_size
        permutation = torch.randperm(blocks * batch_size, generator=draw)
        return find_partners(permutation, blocks, mixed_blocks * batch_size, device)
    num_own = config.train.batch_size // distributed.world_size()
    # every rank draws what all draw and takes its own, so that the next number is the same on all
    seeds = torch.randint(2**62, (distributed.world_size(),), generator=draw)
    permutation = torch.randperm(blocks * num_own, generator=generator(int(seeds[distributed.rank()])))
    return Partners(permutation[: mixed_blocks * num_own].to(device, non_blocking=True))


def paired_batches(own: Learner, context: TrainContext, epoch: int) -> list[Tensor]:
    """Index batches of 2B: B of X, then B of U; one pass over X (or semisup.batches_per_epoch), U cycled.

    With train.pool_batches, X and U are the epoch's draws of them. Where U holds fewer than B samples (clean data), its
    half comes from all samples that were divided: the same few images in every
    batch would bend BatchNorm, and a label guessed for a clean sample does no harm.
    """
    config, partition = context.config, own.partition
    assert partition is not None
    order = generator(context.seed("order", epoch, own))
    batch_size = config.train.batch_size
    labelled, unlabelled = partition.labelled, partition.unlabelled
    if len(unlabelled) < batch_size:
        unlabelled = partition.scored
    labelled = context.pool(labelled, context.seed("pool of X", epoch, own))
    unlabelled = context.pool(unlabelled, context.seed("pool of U", epoch, own))
    labelled_batches, _ = shuffled_batches(labelled, batch_size, order, config.semisup.batches_per_epoch or None)
    unlabelled_batches, _ = shuffled_batches(unlabelled, batch_size, order, len(labelled_batches))
    return [torch.cat(pair) for pair in zip(labelled_batches, unlabelled_batches, strict=True)]
