"""Seconds that an epoch of CIFAR-10 works on the main thread of the host and not on the device, stage by stage.

``--clock cpu`` measures the CPU time of the main thread, for a busy machine: then waiting does not count.

A trainer of 50,000 made-up samples with PreAct ResNet-18 and momentum records a made-up cleaning and closes the epoch:
metrics, files per sample, the line of metrics.jsonl and the checkpoint. On a GPU the device waits for this work.
Networks are not passed, and mixtures are given. Two kinds of work are apart, because a GPU does them in its queue:
copies to main memory, and the embeddings for the report. The check fails if the median of the host's work exceeds
``LIMIT``. Writes results/<machine>/host_work.json.
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH / "speed")]  # the modules of all benches
from harness import Check, Report, Row, Timing, arguments, this_machine
from trainers import cifar_config, made_up_cifar, scratch, trainer_of

from fastcpc.cleaner.partition import co_divide
from fastcpc.distributed import whole_shard
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.loggers.host_copies import HostCopies, ReusedCopies
from fastcpc.engine.outputs import cleaning_record
from fastcpc.engine.scoring import SampleScores, ScoringResult
from fastcpc.engine.trainer import Trainer
from fastcpc.kernels import fit_gmm, order_groups

NUM_TRAIN, NUM_TEST, REPEATS = 50_000, 1_000, 5
LIMIT = 0.05  # seconds
WARMUP = 10  # epochs: the first cleaning also measures the losses
PARTS = ("after cleaning", "epoch's end", "host", "device")
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
DEVICE_WORK = ((HostCopies, "of"), (ReusedCopies, "of"), (cleaning_record, "score_tensors"))


def made_up_scoring(trainer: Trainer, seed: int) -> ScoringResult:
    """Scores with lower losses where the given label is correct."""
    draws = torch.Generator().manual_seed(seed)
    wrong_N = torch.from_numpy(trainer.labels.given != trainer.labels.known)
    num_samples = len(wrong_N)

    def scores(feat_dim: int) -> SampleScores:
        loss_N = torch.rand(num_samples, generator=draws) + 2.0 * wrong_N
        floats = torch.rand(2, num_samples, generator=draws)
        predicted_N = torch.randint(trainer.dataset.num_classes, (num_samples,), generator=draws)
        features = torch.randn(num_samples, feat_dim, generator=draws)
        return SampleScores(loss_N, predicted_N, floats[0], floats[1], features)

    feat_dim = trainer.learners[0].network.feature_dim
    return ScoringResult((scores(feat_dim), scores(feat_dim)), scores(0), whole_shard(num_samples))


def made_up_cleaning(trainer: Trainer, scoring: ScoringResult) -> Cleaning:
    """Mixtures of the losses, and two cleaners with noisy probabilities."""
    labels_N, num_classes = trainer.training.labels_N, trainer.dataset.num_classes
    order = order_groups(labels_N, num_classes)
    mixtures, probs = [], []
    for scores in scoring.networks:
        values_N = scores.loss_N / scores.loss_N.max()
        mixtures.append({"agn": fit_gmm(values_N), "awr": fit_gmm(values_N, order, num_classes)})
        probs.append(1 - values_N)
    first = (probs[0], probs[1])
    second = (probs[0].sqrt(), probs[1].sqrt())
    partitions = co_divide(*second, trainer.config.cleaner.tau)
    for learner, partition in zip(trainer.learners, partitions, strict=True):
        learner.partition = partition
    return Cleaning({"gmm": first, "cpc": second}, second, partitions, mixtures)


def give_momentum(trainer: Trainer) -> None:
    """A step of each optimiser with gradients of zero."""
    for learner in trainer.learners:
        for optimizer in (learner.optimizer, learner.cpc_optimizer):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            optimizer.zero_grad()


class DeviceWork:
    """Sums the seconds on the main thread of what a GPU does in its queue."""

    def __init__(self, stack: ExitStack, clock: Callable[[], float]) -> None:
        """stack: ends the measurement. clock: in seconds."""
        self.seconds, self.clock = 0.0, clock
        for owner, name in DEVICE_WORK:
            stack.enter_context(patch.object(owner, name, self._timed(getattr(owner, name))))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            begin = self.clock()
            result = function(*arguments, **options)
            self.seconds += self.clock() - begin
            return result

        return timed


def record_epoch(trainer: Trainer, epoch: int, pause: float, device: DeviceWork) -> dict[str, float]:
    """Seconds of the main thread. pause: for training, which the writer may use."""
    device.seconds = 0.0
    run_state = trainer.run_state
    run_state.epoch = epoch
    run_state.begin_epoch("train", 0.02)
    scoring = made_up_scoring(trainer, epoch)
    cleaning = made_up_cleaning(trainer, scoring)
    with patch.object(trainer, "score", lambda *_: scoring), patch.object(trainer, "run_cleaner", lambda *_: cleaning):
        begin = device.clock()
        with run_state.timed("clean"):
            trainer.clean(epoch)
        cleaned = device.clock() - begin
    time.sleep(pause)
    losses: list[float] = [1.0, 1.0]
    run_state.record.update(labelled=[25_000, 25_000], loss_total=losses, loss_labelled=losses)
    run_state.record.update(test_top1=90.0, test_top5=99.0, net1_top1=89.0, net2_top1=89.0, prototype_top1=89.0)
    run_state.record["seconds"].update(train=5.0, eval=0.1)
    begin = device.clock()
    trainer.close_epoch()
    closed = device.clock() - begin
    host = cleaned + closed - device.seconds
    return dict(zip(PARTS, (cleaned, closed, host, device.seconds), strict=True))


def main() -> int:
    """Print the seconds of each part and write the JSON."""
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--pause", type=float, default=5.0, help="seconds of training between both parts")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: CPU time of the main thread")
    parser.add_argument("settings", nargs="*", help="further key=value settings")
    options = parser.parse_intermixed_args()
    report = Report("host_work", this_machine("cpu"), options.results)
    repeats = options.repeats or REPEATS
    with scratch() as folder:
        given = [f"run.dir={folder}", "device=cpu", "precision=fp32", "compile=false", "log.figures_every=0"]
        given += ["noise.kind=sym", "noise.rate=0.5", "semisup.lambda_u=25", "data.root=made-up"]
        config = cifar_config([*given, f"train.warmup_epochs={WARMUP}", *options.settings])
        with trainer_of(config, made_up_cifar(NUM_TRAIN, NUM_TEST)) as trainer, trainer.writer:
            give_momentum(trainer)
            epochs = range(WARMUP, WARMUP + 2 + repeats)  # the first two fill caches and buffers
            with ExitStack() as stack:
                device = DeviceWork(stack, CLOCKS[options.clock])
                seconds = [record_epoch(trainer, epoch, options.pause, device) for epoch in epochs][2:]
    for part in PARTS:
        spent = sorted(row[part] for row in seconds)
        timing = Timing(spent[len(spent) // 2], spent[0], spent[-1], len(spent))
        limit = LIMIT if part == "host" else float("inf")
        labels = {"part": part, "range": "minimum to maximum", "clock": options.clock}
        report.add(Row(labels, Check("seconds", timing.median, limit), "main thread", {"main thread": timing}))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
