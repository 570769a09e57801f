"""A run of CPC-DivideMix: the order of Algorithm 1, and nothing else that another module could do."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcpc import ranks
from fastcpc.config.load import to_yaml
from fastcpc.config.schema import Config
from fastcpc.data.datasets import Dataset
from fastcpc.data.feed import Batch
from fastcpc.data.feeds import make_feed
from fastcpc.data.noise import Labels
from fastcpc.data.sampler import sequential_batches
from fastcpc.data.seeds import fold
from fastcpc.engine.checkpoint import CheckpointStore
from fastcpc.engine.checkpoint_files import pack, parse
from fastcpc.engine.cleaning import Cleaning, clean_labels
from fastcpc.engine.collect import Collected, collect
from fastcpc.engine.cotrain import BothPasses
from fastcpc.engine.course import Course
from fastcpc.engine.evaluate import Accuracy, evaluate
from fastcpc.engine.findings import Findings
from fastcpc.engine.folder import RunFolder
from fastcpc.engine.interrupt import Stopped, StopRequest
from fastcpc.engine.log import RunLog
from fastcpc.engine.member import LOSS_NAMES, Member
from fastcpc.engine.optim import learning_rate
from fastcpc.engine.passes import PassEnd, begin_note, end_pass, run_pass
from fastcpc.engine.precision import resolve_numerics, set_determinism
from fastcpc.engine.pred_probs import PRED_PROBS_FILE, write_pred_probs
from fastcpc.engine.results import describe_suspects, summarise
from fastcpc.engine.same_settings import check_same_samples
from fastcpc.engine.scale import for_ranks
from fastcpc.engine.stages import Training
from fastcpc.engine.walks import Walks
from fastcpc.engine.writer import Writer
from fastcpc.errors import InputError

WRITTEN_AT_ONCE = 2**24  # bytes of a checkpoint that the run waits for; a larger one is written beside the next epoch


class Trainer:
    """Two networks, the data, and the course of the run: everything between a config and a finished folder."""

    def __init__(
        self, config: Config, dataset: Dataset, labels: Labels, folder: RunFolder, stop: StopRequest, log: RunLog
    ) -> None:
        self.config = config = for_ranks(config)
        self.dataset, self.labels = dataset, labels
        self.folder, self.log = folder, log
        self.numerics = resolve_numerics(config)
        set_determinism(config, self.numerics)
        device, num_classes = self.numerics.device, self.dataset.num_classes
        given_N = torch.from_numpy(self.labels.given).to(device)
        bad_list = folder.path / "bad_images.txt"
        train_feed = make_feed(self.dataset.train, self.dataset, config.data, config.augment, device, bad_list)
        test = self.dataset.tests["test"]
        self.training = Training(config, self.numerics, train_feed, given_N, num_classes)
        self.test_feed = make_feed(test, self.dataset, config.data, config.augment, device, bad_list)
        self.test_labels = torch.from_numpy(test.labels).to(device)
        with ranks.own_half():  # those that train a network together sum its gradients
            self.members = [
                Member(
                    number,
                    config,
                    self.numerics,
                    num_classes=num_classes,
                    in_channels=self.dataset.in_channels,
                    image_size=self.dataset.image_size,
                    num_samples=train_feed.num_samples,
                )
                for number in (1, 2)
            ]
        self.course = Course()
        self.walks = Walks(self.course, log, stop)
        self.findings = Findings(config, dataset, labels, folder.path)
        self.snapshot: dict[str, Any] = {}
        header = {"model": config.model.name, "num_classes": str(num_classes)}
        self.writer = Writer()
        self.store = CheckpointStore(folder.path, config.run.keep_every, header) if ranks.is_first() else None

    # ---- Algorithm 1 ----

    def run(self) -> dict[str, Any]:
        """Train from the present position to the end, write the results, return the summary."""
        with self.writer:
            while self.course.epoch < self.config.train.epochs:
                try:
                    self.run_epoch()
                except Stopped:
                    self.save(self.course.epoch, best=False)
                    ranks.on_first(self.writer.finish)
                    raise
            ranks.on_first(self.writer.finish)
            return self.finish()

    def run_epoch(self) -> None:
        """Every stage of an epoch that is still to come, then its line in the logs and its checkpoint."""
        epoch, course = self.course.epoch, self.course
        lr = learning_rate(epoch, self.config.train)
        for member in self.members:
            member.set_learning_rate(lr)
        course.begin_epoch("warmup" if epoch < self.config.train.warmup_epochs else "train", lr)
        for name, stage in self.outline(epoch)[course.stage :]:
            ranks.at(f"epoch {epoch}, {name}")
            with course.part(name):
                stage()
            course.close_stage()
        self.close_epoch()

    def outline(self, epoch: int) -> list[tuple[str, Callable[[], None]]]:
        """The stages of an epoch in the order of Algorithm 1, each under the name its seconds are counted under."""
        first, second = self.members
        in_warmup = epoch < self.config.train.warmup_epochs or self.config.cleaner.kind == "none"
        if self.config.parallel.mode == "co":
            cleaning = [] if in_warmup else [("clean", lambda: self.clean(epoch))]
            both = ("train", lambda: self.train_both(epoch, guesses=not in_warmup))
            return [*cleaning, both, ("eval", self.evaluate)]
        if in_warmup:
            return [
                ("train", lambda: self.train(first, None, epoch)),
                ("train", lambda: self.train(second, None, epoch)),
                ("eval", self.evaluate),
            ]
        return [
            ("clean", lambda: self.clean(epoch)),
            ("train", lambda: self.train(first, second, epoch)),
            ("train", lambda: self.train(second, first, epoch)),
            ("eval", self.evaluate),
        ]

    # ---- stages ----

    def clean(self, epoch: int) -> None:
        """Stage 1: score all samples (or the epoch's pool) by both networks, then divide them."""
        with self.course.part("score"):
            collected = self.score(epoch, self.training.scored(epoch))
            self.numerics.wait()  # or what is still queued would count as cleaning, which reads the losses at once
        cleaning = self.divide(collected, epoch, f"epoch {epoch}")
        for member in self.members:
            if member.partition is not None:
                division = (member.partition.clean_N, member.partition.clean_prob_N)
                ranks.check_same(f"the partition of network {member.number} in epoch {epoch}", *division)
        self.course.record.update(self.findings.judge(cleaning, collected, epoch))
        if collected.rows is None:  # a pool says nothing of the rest; the final cleaning is of all
            self.findings.write(cleaning, collected, self.members, self.training.labels_N, epoch)

    def divide(self, collected: Collected, epoch: int, when: str) -> Cleaning:
        """Fit, score and divide what was collected; what the user should know of it goes into the log."""
        labels_N, num_classes = self.training.labels_N, self.dataset.num_classes
        cleaning = clean_labels(
            self.members,
            collected,
            labels_N,
            self.config,
            num_classes=num_classes,
            epoch=epoch,
            order=self.training.label_order,
        )
        for note in cleaning.notes:
            self.log.warning(f"{when}: {note}")
        return cleaning

    def score(self, epoch: int, rows: Tensor | None = None) -> Collected:
        """One pass of both networks over the training set, in evaluation mode and with the test transform.

        rows: which samples, int64 (M,) on the CPU, ascending; None: all.
        """
        feed, labels_N = self.training.feed, self.training.labels_N
        num_scored = feed.num_samples if rows is None else len(rows)
        places = sequential_batches(num_scored, self.config.train.score_batch_size)
        own, shard, rounds = ranks.shard_batches(places, num_scored)
        batches = own if rows is None else [rows[place] for place in own]
        stream = feed.stream(batches, ("test",), fold(self.config.run.seed, "score", epoch))
        networks = [member.network for member in self.members]
        watched = self.walks.watch("score", stream, rounds)
        if rows is None:
            return collect(networks, watched, labels_N, self.numerics, shard)
        rows = rows.to(labels_N.device)
        watched = renumbered(watched, rows, len(labels_N))
        return replace(collect(networks, watched, labels_N[rows], self.numerics, shard), rows=rows)

    def train(self, own: Member, other: Member | None, epoch: int) -> None:
        """Stage 2 for one network, the other fixed; other: None in the warm-up."""
        course = self.course
        if course.step == 0:
            own.sums.zero_()
            self.snapshot = own.snapshot()
            self.tell_of_begin(own, other, epoch)
        try:
            steps = run_pass(own, other, self.training, self.walks, epoch, course.step)
        except Stopped:
            ranks.mean_(own.sums, "losses")  # the ranks' sums so far become one, which all take up again
            raise
        self.record_pass(end_pass(own, other, self.training, self.snapshot, epoch, steps))

    def train_both(self, epoch: int, *, guesses: bool) -> None:
        """Stage 2 for both networks at once, each with the other as it is now (``parallel.mode=co``)."""
        if not self.course.done:
            self.course.done = [0] * len(self.members)
            self.snapshot = {f"net{member.number}": member.snapshot() for member in self.members}
            for own, other in zip(self.members, reversed(self.members), strict=True):
                own.sums.zero_()
                self.tell_of_begin(own, other if guesses else None, epoch)
        passes = BothPasses(self.members, self.training, self.walks, self.course, self.snapshot, epoch, guesses)
        for end in passes.run():
            self.record_pass(end)

    def tell_of_begin(self, own: Member, other: Member | None, epoch: int) -> None:
        """Say what is unusual about a pass that begins."""
        note = begin_note(own, other, self.training, epoch)
        if note:
            self.log.info(note)

    def record_pass(self, end: PassEnd) -> None:
        """Note how a pass ended in the epoch's record; say so where it was taken back."""
        if end.note:
            self.log.warning(end.note)
        record = self.course.record
        record.setdefault("labelled", []).append(end.num_labelled)
        for name, value in zip(LOSS_NAMES, end.means, strict=True):
            record.setdefault(f"loss_{name}", []).append(value)
        self.snapshot = {}

    def evaluate(self) -> None:
        """Accuracy of both networks together, of each, and by nearest prototype, on the test split."""
        accuracy = self.measure()
        self.course.record.update(
            test_top1=accuracy.top1,
            test_top5=accuracy.top5,
            net1_top1=accuracy.network_top1[0],
            net2_top1=accuracy.network_top1[1],
            prototype_top1=accuracy.prototype_top1 if self.has_prototypes else None,
        )

    def measure(self) -> Accuracy:
        """Evaluate on the test split."""
        batches = sequential_batches(self.test_feed.num_samples, self.config.train.score_batch_size)
        own, _, rounds = ranks.shard_batches(batches, self.test_feed.num_samples)
        stream = self.test_feed.stream(own, ("test",), 0)
        networks = [member.network for member in self.members]
        cosine = self.config.cleaner.kind == "cpc_only"
        return evaluate(
            networks, self.walks.watch("evaluate", stream, rounds), self.test_labels, self.numerics, cosine=cosine
        )

    @property
    def has_prototypes(self) -> bool:
        """Whether the prototypes have been trained by now."""
        trained = self.course.epoch >= self.config.train.warmup_epochs
        return trained and self.config.cleaner.kind.startswith("cpc")

    # ---- records ----

    def close_epoch(self) -> None:
        """Log the epoch, move on to the next, save."""
        epoch, record = self.course.epoch, self.course.record
        is_best = self.course.close_epoch()
        ranks.on_first(lambda: self.log.epoch(record))
        for member in self.members:
            weights = member.network.state_dict().values()
            ranks.check_same(f"the weights of network {member.number} after epoch {epoch}", *weights)
        self.save(epoch, best=is_best)

    def save(self, epoch: int, *, best: bool) -> None:
        """Write a checkpoint of the present position: rank 0 does. All go on when the one before is whole and this one
        copied (whole too, where that takes no time), or none does."""
        ranks.on_first(lambda: self._write(epoch, best=best))

    def _write(self, epoch: int, *, best: bool) -> None:
        store = self.store
        assert store is not None
        self.writer.finish()
        state = {
            "config": to_yaml(self.config),
            "batch_size": self.config.train.batch_size,
            "mode": self.config.parallel.mode,
            **self.course.state(),
            "members": [member.state() for member in self.members],
            # what a pass that is under way goes back to when its losses turn out to be no numbers
            "snapshot": self.snapshot if self.course.step else {},
        }
        # a run that was taken back to an earlier epoch may have lost the checkpoint of its best one
        keep_as_best = best or (self.course.is_between_epochs and not store.has_best())
        packed = pack(epoch, [member.network.state_dict() for member in self.members], state)
        self.writer.begin(lambda: store.write(packed, best=keep_as_best))
        if packed.num_bytes < WRITTEN_AT_ONCE:
            self.writer.finish()

    def resume(self, checkpoint: Path, files: Mapping[str, bytes]) -> None:
        """Take up a checkpoint: weights, optimisers, loss histories, partitions and position.

        files: the checkpoint's own, whole; on how many ranks it was written does not matter.
        """
        weights, state = parse(checkpoint, files)
        check_same_samples(state["config"], self.config, checkpoint)
        self._check_same_steps(state, checkpoint)
        for member, net_weights, member_state in zip(self.members, weights, state["members"], strict=True):
            member.load(net_weights, member_state)
        self.course.load(state)
        self.snapshot = state["snapshot"]

    def _check_same_steps(self, state: dict[str, Any], checkpoint: Path) -> None:
        """A stop inside an epoch counts its stages, and a pass's steps in global batches: they must be the same."""
        mode = state.get("mode", "data")
        if mode != self.config.parallel.mode and (state["position"]["stage"] or state["position"]["step"]):
            raise InputError(
                f"{checkpoint} stopped inside an epoch with parallel.mode={mode}: go on with that, or start from a "
                "checkpoint at an epoch's end"
            )
        then, now = state.get("batch_size", self.config.train.batch_size), self.config.train.batch_size
        if state["position"]["step"] and then != now:
            raise InputError(
                f"{checkpoint} stopped inside an epoch at a global batch of {then}, and this start makes it {now}: "
                "start as many processes as then, or give train.batch_size to match (parallel.batch_size)"
            )

    def finish(self) -> dict[str, Any]:
        """Score and clean once more with the final networks, export what was found, write the summary."""
        epoch = self.config.train.epochs
        collected = self.score(epoch)
        cleaning = None
        if self.config.cleaner.kind != "none" and epoch > self.config.train.warmup_epochs:
            cleaning = self.divide(collected, epoch, "final cleaning")
        columns = self.findings.write(cleaning, collected, self.members, self.training.labels_N, epoch)
        networks = [member.network for member in self.members]
        batch_size = self.config.train.score_batch_size
        write_pred_probs(self.folder.path / PRED_PROBS_FILE, networks, collected, self.numerics, batch_size)
        summary = summarise(self.course.past, self.numerics.device, columns, self.labels)
        ranks.on_first(lambda: self.folder.write_json("summary.json", summary))
        self.log.info(describe_suspects(summary, len(self.labels.given)))
        self.log.finished(summary)
        return summary


def renumbered(batches: Iterator[Batch], rows_M: Tensor, num_samples: int) -> Iterator[Batch]:
    """Batches of some samples, each index replaced by its place among rows_M."""
    place_N = torch.full((num_samples,), -1, dtype=torch.int64, device=rows_M.device)
    place_N[rows_M] = torch.arange(len(rows_M), device=rows_M.device)
    for batch in batches:
        yield replace(batch, index=place_N[batch.index])
