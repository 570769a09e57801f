"""A run of CPC-DivideMix in the order of Algorithm 1: see ``Trainer.outline``."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcpc import distributed
from fastcpc.cleaner.loss_history import check_finite
from fastcpc.cleaner.registry import cleaners_of, prototype_similarity
from fastcpc.config.load import to_yaml
from fastcpc.config.schema import Config
from fastcpc.data.dataset import Dataset
from fastcpc.data.embeddings.loader import rows_on_demand
from fastcpc.data.labels.noise import Labels
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.rng import fold
from fastcpc.data.sampler import sequential_batches
from fastcpc.distributed.batch_scaling import scale_to_ranks
from fastcpc.engine.checkpoint.changed_data import DIGEST, Change, check_num_samples, map_samples
from fastcpc.engine.checkpoint.config_diff import check_same_samples, check_same_steps, has_other_head
from fastcpc.engine.checkpoint.format import checked_state, pack, parse
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.engine.cleaning import Cleaning, clean_labels
from fastcpc.engine.evaluate import Accuracy, evaluate
from fastcpc.engine.learner import LOSS_NAMES, Learner
from fastcpc.engine.loggers.async_writer import AsyncWriter
from fastcpc.engine.loggers.host_copies import ReusedCopies
from fastcpc.engine.loggers.run_log import RunLog
from fastcpc.engine.numerics import resolve_numerics, set_determinism
from fastcpc.engine.optim.learning_rate import check_warmup_steps
from fastcpc.engine.outputs.cleaning_record import CleaningRecord, describe_suspects, summarise
from fastcpc.engine.outputs.flops import count_image_flops
from fastcpc.engine.outputs.pred_probs import FEATURES_FILE, PRED_PROBS_FILE, write_features, write_pred_probs
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.engine.run_state import RunState
from fastcpc.engine.schedule import SCHEDULES
from fastcpc.engine.scoring import ScoringResult, renumbered, score_samples
from fastcpc.engine.step_loop import StepLoop, Stopped, StopRequest
from fastcpc.engine.train_epoch import PassResult, TrainContext
from fastcpc.engine.whitening import fit_whitening

SYNCHRONOUS_BYTES = 2**24  # bytes; a larger checkpoint is written by a thread during the next epoch


class Trainer:
    """The two networks, the data and the state of a run: from a config to a finished run folder."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        labels: Labels,
        run_dir: RunDir,
        stop: StopRequest,
        log: RunLog,
        data_digest: str = "",
    ) -> None:
        """data_digest: of ``DataIdentity``, for the header of checkpoints."""
        self.config = config = scale_to_ranks(config)
        self.dataset, self.labels = dataset, labels
        self.run_dir, self.log = run_dir, log
        self.numerics = resolve_numerics(config)
        set_determinism(config, self.numerics)
        device, num_classes = self.numerics.device, self.dataset.num_classes
        given_N = torch.from_numpy(self.labels.given).to(device)
        bad_list = run_dir.path / "bad_images.txt"
        train_loader = make_loader(self.dataset.train, self.dataset, config.data, config.augment, device, bad_list)
        test = self.dataset.tests["test"]
        self.test_loader = make_loader(test, self.dataset, config.data, config.augment, device, bad_list)
        self.test_labels = torch.from_numpy(test.labels).to(device)
        with distributed.own_subgroup():  # ranks that train one network sum its gradients
            self.learners = [
                Learner(
                    number,
                    config,
                    self.numerics,
                    num_classes=num_classes,
                    in_channels=self.dataset.in_channels,
                    image_size=self.dataset.image_size,
                    num_samples=train_loader.num_samples,
                )
                for number in (1, 2)
            ]
        fit_whitening([network for own in self.learners for network in (own.network, own.eval_network)], train_loader)
        shape = self.dataset.in_channels, self.dataset.image_size
        flops = count_image_flops(self.learners[0].network, *shape)
        if flops is None:
            log.info(f"model.name={config.model.name}: its FLOPs cannot be counted; training_flops is null")
        confirmed = self.labels.confirmed
        confirmed_N = None if confirmed is None else torch.from_numpy(confirmed).to(device)
        self.training = TrainContext(config, self.numerics, train_loader, given_N, num_classes, flops, confirmed_N)
        check_warmup_steps(config.train, self.training.steps_per_epoch)
        self.cleaners = cleaners_of(config.cleaner.kind)
        self.run_state = RunState()
        self.step_loop = StepLoop(self.run_state, log, stop)
        self.cleaning_record = CleaningRecord(config, dataset, labels, run_dir.path)
        schedule = SCHEDULES[config.parallel.mode]
        self.schedule = schedule(self.learners, self.training, self.step_loop, self.run_state, log)
        header = {"model": config.model.name, "num_classes": str(num_classes), DIGEST: data_digest}
        self.writer, self.checkpoint_copies, self.config_text = AsyncWriter(), ReusedCopies(), to_yaml(config)
        self.store = CheckpointStore(run_dir.path, config.run.keep_every, header) if distributed.is_rank0() else None

    # ---- Algorithm 1 ----

    def run(self) -> dict[str, Any]:
        """Train from the present position to the end, write the results and return the summary."""
        with self.writer:
            while self.run_state.epoch < self.config.train.epochs:
                try:
                    self.run_epoch()
                except Stopped:
                    self.save(self.run_state.epoch, best=False)
                    distributed.on_rank0(self.writer.finish)
                    raise
            distributed.on_rank0(self.writer.finish)
            return self.finish()

    def run_epoch(self) -> None:
        """Run the remaining stages of an epoch, then log it and save a checkpoint."""
        epoch, run_state = self.run_state.epoch, self.run_state
        lr = self.training.learning_rate(epoch)
        if run_state.is_between_epochs:  # inside an epoch a network has the rate of its last step
            for learner in self.learners:
                learner.set_learning_rate(lr)
        run_state.begin_epoch("warmup" if epoch < self.config.train.warmup_epochs else "train", lr)
        for name, stage in self.outline(epoch)[run_state.stage :]:
            distributed.set_location(f"epoch {epoch}, {name}")
            with run_state.timed(name):
                stage()
            run_state.next_stage()
        self.close_epoch()

    def outline(self, epoch: int) -> list[tuple[str, Callable[[], None]]]:
        """The stages of an epoch in the order of Algorithm 1, each with the name under which its seconds are logged."""
        in_warmup = epoch < self.config.train.warmup_epochs or not self.cleaners
        cleaning = [] if in_warmup else [("clean", lambda: self.clean(epoch))]
        passes = self.schedule.stages(epoch, guesses=not in_warmup)
        training = [("train", lambda train=train: self.record_passes(train())) for train in passes]
        return [*cleaning, *training, ("eval", self.evaluate)]

    # ---- stages ----

    def clean(self, epoch: int) -> None:
        """Stage 1: score all samples (or the epoch's pool) with both networks, then partition them."""
        with self.run_state.timed("score"):
            scoring = self.score(epoch, self.training.scored(epoch))
            self.numerics.wait()  # otherwise queued work would count as cleaning, which reads the losses first
        num_scored = self.training.loader.num_samples if scoring.rows is None else len(scoring.rows)
        flops = self.training.flops
        self.run_state.add_flops(None if flops is None else len(self.learners) * num_scored * flops.forward)
        cleaning = self.run_cleaner(scoring, epoch, f"epoch {epoch}")
        for learner in self.learners:
            if learner.partition is not None:
                partition = (learner.partition.clean_N, learner.partition.clean_prob_N)
                distributed.assert_equal_on_all_ranks(
                    f"the partition of network {learner.number} in epoch {epoch}", *partition
                )
        results = self.cleaning_record.collect(cleaning, scoring, self.learners, self.training.labels_N, epoch)
        distributed.on_rank0(lambda: self.cleaning_record.begin(results, self.writer, self.run_state.record))

    def run_cleaner(self, scoring: ScoringResult, epoch: int, when: str) -> Cleaning:
        """Run the cleaners on a scoring pass, give each learner its partition, log the cleaners' notes."""
        labels_N, num_classes = self.training.labels_N, self.dataset.num_classes
        cleaning = clean_labels(
            self.learners,
            scoring,
            labels_N,
            self.config,
            num_classes=num_classes,
            epoch=epoch,
            order=self.training.label_order,
            confirmed_N=self.training.confirmed_N,
        )
        for note in cleaning.notes:
            self.log.warning(f"{when}: {note}")
        return cleaning

    def score(self, epoch: int, rows: Tensor | None = None) -> ScoringResult:
        """One pass of both networks over the training set, in evaluation mode and with the test transform.

        rows: which samples, int64 (M,) on the CPU, ascending; None: all.
        """
        loader, labels_N = self.training.loader, self.training.labels_N
        num_scored = loader.num_samples if rows is None else len(rows)
        places = sequential_batches(num_scored, self.numerics.score_batch)
        own, shard, rounds = distributed.shard_batches(places, num_scored)
        batches = own if rows is None else [rows[place] for place in own]
        stream = loader.stream(batches, ("test",), fold(self.config.run.seed, "score", epoch))
        networks = [learner.eval_network for learner in self.learners]
        steps = self.step_loop.eval_steps("score", stream, rounds)
        features = None
        if all(not list(network.backbone.parameters()) for network in networks):  # their features are their inputs
            own_rows = shard.rows if rows is None else rows[shard.rows]
            features = rows_on_demand(loader, own_rows, self.numerics.dtype)
        if rows is None:
            return score_samples(networks, steps, labels_N, self.numerics, shard, features)
        rows = rows.to(labels_N.device)
        steps = renumbered(steps, rows, len(labels_N))
        return replace(score_samples(networks, steps, labels_N[rows], self.numerics, shard, features), rows=rows)

    def record_passes(self, results: list[PassResult]) -> None:
        """Add the results of training passes to the epoch's record; log a rollback."""
        record = self.run_state.record
        for result in results:
            if result.note:
                self.log.warning(result.note)
            self.run_state.add_flops(result.flops)
            record.setdefault("labelled", []).append(result.num_labelled)
            for name, value in zip(LOSS_NAMES, result.means, strict=True):
                record.setdefault(f"loss_{name}", []).append(value)
        self.schedule.snapshot = {}

    def evaluate(self) -> None:
        """Record the accuracy on the test split: of the pair, of each network, and by nearest prototype."""
        accuracy = self.measure()
        self.run_state.record.update(
            test_top1=accuracy.top1,
            test_top5=accuracy.top5,
            net1_top1=accuracy.network_top1[0],
            net2_top1=accuracy.network_top1[1],
            prototype_top1=accuracy.prototype_top1 if self.has_prototypes else None,
        )

    def measure(self) -> Accuracy:
        """Evaluate on the test split."""
        batches = sequential_batches(self.test_loader.num_samples, self.numerics.score_batch)
        own, _, rounds = distributed.shard_batches(batches, self.test_loader.num_samples)
        stream = self.test_loader.stream(own, ("test",), 0)
        cosine = prototype_similarity(self.config.cleaner.kind) == "cosine"
        return evaluate(
            [learner.eval_network for learner in self.learners],
            self.step_loop.eval_steps("evaluate", stream, rounds),
            self.test_labels,
            self.numerics,
            cosine=cosine,
        )

    @property
    def has_prototypes(self) -> bool:
        """Whether the prototypes are trained by now."""
        return prototype_similarity(self.config.cleaner.kind) is not None and all(
            learner.cpc_optimizer.state for learner in self.learners
        )

    # ---- records ----

    def close_epoch(self) -> None:
        """Log the epoch, move to the next, save a checkpoint."""
        distributed.on_rank0(self._finish_writing)
        epoch, record = self.run_state.epoch, self.run_state.record
        is_best = self.run_state.close_epoch()
        distributed.on_rank0(lambda: self.log.epoch(record))
        for learner in self.learners:
            networks = {id(network): network for network in (learner.network, learner.eval_network)}
            weights = [value for network in networks.values() for value in network.state_dict().values()]
            distributed.assert_equal_on_all_ranks(
                f"the weights of network {learner.number} after epoch {epoch}", *weights
            )
        self.save(epoch, best=is_best)

    def save(self, epoch: int, *, best: bool) -> None:
        """Rank 0 writes a checkpoint of the present position; a failure is raised on all ranks.

        It waits until the checkpoint before is on disk and this one is copied (a small one: until it is on disk, too).
        """
        distributed.on_rank0(lambda: self._write(epoch, best=best))

    def _write(self, epoch: int, *, best: bool) -> None:
        store = self.store
        assert store is not None
        self._finish_writing()
        self.checkpoint_copies.restart()
        state = {
            "config": self.config_text,
            "batch_size": self.config.train.batch_size,
            "mode": self.config.parallel.mode,
            **self.run_state.state(),
            "members": [learner.state() for learner in self.learners],
            # the state to which an unfinished pass is rolled back if its losses become non-finite
            "snapshot": self.schedule.snapshot if self.run_state.step else {},
        }
        # a run that resumed from an earlier epoch may have lost the checkpoint of its best one
        keep_as_best = best or (self.run_state.is_between_epochs and not store.has_best())
        networks = [learner.eval_network.state_dict() for learner in self.learners]
        packed = pack(epoch, networks, state, self.checkpoint_copies)
        self.writer.begin(lambda: store.write(packed, best=keep_as_best))
        if packed.num_bytes < SYNCHRONOUS_BYTES:
            self.writer.finish()

    def _finish_writing(self) -> None:
        """Wait until all files so far are written, and add the metrics of the epoch's cleaning to its record."""
        self.writer.finish()
        self.cleaning_record.add_metrics(self.run_state.record)

    def resume(self, checkpoint: Path, files: Mapping[str, bytes], change: Change | None = None) -> None:
        """Load weights, optimisers, loss histories, partitions and position of a checkpoint.

        files: as ``read_whole`` returns them, written by any number of ranks. change: of the data set, if the user
        accepts one.
        """
        weights, content = parse(checkpoint, files)
        state = checked_state(checkpoint, content)
        check_same_samples(state["config"], self.config, checkpoint)
        if change is not None:
            state = map_samples(state, change)
        check_num_samples(state, self.training.loader.num_samples, checkpoint)
        check_same_steps(state, self.config, checkpoint)
        new_head = has_other_head(state["config"], self.config)
        for learner, net_weights, learner_state in zip(self.learners, weights, state["members"], strict=True):
            learner.load(net_weights, learner_state, new_head=new_head)
        self.run_state.load(state)
        self.schedule.snapshot = state["snapshot"]

    def finish(self) -> dict[str, Any]:
        """Score and clean once more with the final networks, write the results and the summary."""
        epoch = self.config.train.epochs
        scoring = self.score(epoch)
        cleaning = None
        if self.cleaners and epoch > self.config.train.warmup_epochs:
            cleaning = self.run_cleaner(scoring, epoch, "final cleaning")
        else:
            for learner, scores in zip(self.learners, scoring.networks, strict=True):
                check_finite(scores.loss_N, learner.number)
        results = self.cleaning_record.collect(cleaning, scoring, self.learners, self.training.labels_N, epoch)
        table = self.cleaning_record.table(results)
        distributed.on_rank0(lambda: self.cleaning_record.write(results, table))
        networks = [learner.eval_network for learner in self.learners]
        batch_size = self.numerics.score_batch
        write_pred_probs(self.run_dir.path / PRED_PROBS_FILE, networks, scoring, self.numerics, batch_size)
        num_dims = networks[0].feature_dim
        write_features(self.run_dir.path / FEATURES_FILE, scoring, num_dims, self.numerics, batch_size)
        summary = summarise(self.run_state.history, self.numerics.device, table, self.labels)
        distributed.on_rank0(lambda: self.run_dir.write_json("summary.json", summary))
        self.log.info(describe_suspects(summary, len(self.labels.given)))
        self.log.finished(summary)
        return summary
