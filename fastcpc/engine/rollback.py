"""A network's training pass of an epoch: which stage it is, and what becomes of it at its end."""

from dataclasses import dataclass
from typing import Any

from fastcpc import distributed
from fastcpc.engine.bad_batch import describe_bad_batch
from fastcpc.engine.learner import LOSS_NAMES, Learner
from fastcpc.engine.step_loop import StepLoop
from fastcpc.engine.train_epoch import TrainContext, semi_supervised, warm_up
from fastcpc.errors import RunError

MAX_ROLLBACKS = 3  # passes of a network in a row that may be taken back because they gave no numbers


@dataclass(frozen=True)
class PassResult:
    """How a pass ended.

    num_labelled: samples that were trained on with their given labels. means: of the losses, by LOSS_NAMES; None each
    where the pass was taken back, and then note says so.
    """

    num_labelled: int
    means: tuple[float | None, ...]
    note: str = ""


def train_epoch(
    own: Learner, other: Learner | None, training: TrainContext, step_loop: StepLoop, epoch: int, start: int
) -> int:
    """Stage 2 for one network from step ``start`` on; cross entropy on all labels in the warm-up and where there is no
    good partition yet. Returns the number of steps of the whole pass."""
    own.steps = []
    if other is None or own.partition is None:
        walk = step_loop.train(f"warm-up net {own.number}", 1)
        return warm_up(own, training, walk, epoch=epoch, start=start)
    walk = step_loop.train(f"train net {own.number}", 2)
    return semi_supervised(own, other, training, walk, epoch=epoch, start=start)


def start_note(own: Learner, other: Learner | None, training: TrainContext, epoch: int) -> str:
    """What is unusual about a pass that begins, or nothing."""
    if other is None or own.partition is None or len(own.partition.unlabelled) >= training.config.train.batch_size:
        return ""
    return (
        f"epoch {epoch}, network {own.number}: nearly all labels are held clean; unlabelled batches are drawn from all "
        "samples that were divided"
    )


def finish_pass(
    own: Learner, other: Learner | None, training: TrainContext, snapshot: dict[str, Any], epoch: int, steps: int
) -> PassResult:
    """Read a pass's mean losses; take the pass back to the snapshot where they or the weights are no numbers.

    steps: of the whole pass. RunError where that has happened too often in a row.
    """
    if other is None or own.partition is None:
        num_labelled = len(training.warm_up_rows(own, epoch))
    else:
        num_labelled = int(own.partition.clean_N.sum())
    distributed.all_reduce_mean(own.sums, "losses")
    if own.is_finite():
        own.rollbacks, own.steps = 0, []
        return PassResult(num_labelled, tuple((own.sums / steps).tolist()))
    own.rollbacks += 1
    where = describe_bad_batch(own.steps, steps)
    own.steps = []
    if own.rollbacks > MAX_ROLLBACKS:
        raise RunError(
            f"epoch {epoch}, network {own.number}: losses or weights were no numbers in {own.rollbacks} passes in a row"
            f"{where}; start a new run (another run.dir) with a lower train.lr, or with precision=fp32"
        )
    own.restore(snapshot)
    note = (
        f"epoch {epoch}, network {own.number}: losses or weights became NaN{where}; the network is set back to before "
        "this pass"
    )
    return PassResult(num_labelled, (None,) * len(LOSS_NAMES), note)
