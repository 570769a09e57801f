"""The results of cleanings: metrics against true labels, the files per sample, and the summary of a finished run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcpc import distributed
from fastcpc.cleaner.metrics import precision_recall_accuracy
from fastcpc.cleaner.registry import prototype_similarity
from fastcpc.config.schema import Config
from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.noise import Labels
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.learner import Learner
from fastcpc.engine.loggers.async_writer import AsyncWriter
from fastcpc.engine.loggers.host_copies import HostCopies
from fastcpc.engine.outputs.cleaning_metrics import agreement_metrics, cleaning_metrics, loss_metrics
from fastcpc.engine.outputs.sample_table import CLEANING_FILE, SampleTable
from fastcpc.engine.outputs.score_file import FIRST, LAST, score_tensors, write_scores
from fastcpc.engine.scoring import ScoringResult


@dataclass(frozen=True)
class HostResults:
    """Copies in main memory of what a cleaning found; their values are there after ``copies.wait``.

    cleaning, scoring: without features. scores: of the scores files; empty where the scoring covers a pool. epoch: that
    follows the cleaning.
    """

    cleaning: Cleaning | None
    scoring: ScoringResult
    scores: Mapping[str, Tensor]
    epoch: int
    copies: HostCopies


class CleaningRecord:
    """Measures and writes the cleanings of one run. folder: of the run.

    ``begin`` leaves both to the writer thread, while the device trains. Then ``add_metrics`` completes the epoch's
    record. The final cleaning is written at once.
    """

    def __init__(self, config: Config, dataset: Dataset, labels: Labels, folder: Path) -> None:
        self._config, self._dataset, self._labels, self._folder = config, dataset, labels, folder
        self._pending: tuple[int, dict[str, Any]] | None = None  # place in the record, and metrics that a job fills

    def begin(self, results: HostResults, writer: AsyncWriter, record: Mapping[str, Any]) -> None:
        """Queue the metrics and, after a scoring of all samples, the files. Rank 0 calls.

        record: of the epoch; the metrics belong behind its present keys.
        """
        metrics: dict[str, Any] = {}
        self._pending = len(record), metrics

        def work() -> None:
            results.copies.wait()
            metrics.update(self.metrics(results))
            if results.scores:
                self.write(results, self.table(results))

        writer.begin(work)

    def add_metrics(self, record: dict[str, Any]) -> None:
        """Add the metrics of ``begin`` to the epoch's record, once; the writer must have finished."""
        if self._pending is not None:
            place, metrics = self._pending
            self._pending = None
            items = list(record.items())
            record.clear()
            record.update({**dict(items[:place]), **metrics, **dict(items[place:])})

    def collect(
        self,
        cleaning: Cleaning | None,
        scoring: ScoringResult,
        learners: Sequence[Learner],
        labels_N: Tensor,
        epoch: int,
    ) -> HostResults:
        """Copy what metrics and files need; every rank must call. labels_N: given labels, on the device."""
        copies, scores = HostCopies(), dict[str, Tensor]()
        if scoring.rows is None:  # a pool covers some samples only; the final cleaning covers all
            tensors = score_tensors(
                learners,
                scoring,
                cleaning,
                labels_N,
                num_classes=self._dataset.num_classes,
                epoch=epoch,
                has_prototypes=prototype_similarity(self._config.cleaner.kind) is not None,
                shard=scoring.shard if self._config.parallel.mixture == "summed" else None,
            )
            scores = {name: copies.of(tensor) for name, tensor in tensors.items()}
        cleaning = None if cleaning is None else cleaning.on_host(copies)
        return HostResults(cleaning, scoring.on_host(copies), scores, epoch, copies)

    def metrics(self, results: HostResults) -> dict[str, Any]:
        """Metrics of an epoch's cleaning; without true labels only the agreement of the cleaners."""
        cleaning, scoring, tau = results.cleaning, results.scoring, self._config.cleaner.tau
        assert cleaning is not None
        record = agreement_metrics(cleaning, tau)
        given_N, trusted_N = self._labels.given, self._labels.known
        if trusted_N is not None:
            if scoring.rows is not None:
                rows = scoring.rows.numpy()
                given_N, trusted_N = given_N[rows], trusted_N[rows]
            if not (trusted_N >= 0).any():
                return record
            record |= cleaning_metrics(cleaning, given_N, trusted_N, tau)
            if self._is_first(results.epoch):  # Fig. 1 shows the losses after the warm-up
                record |= loss_metrics(scoring, given_N, trusted_N, self._dataset.num_classes)
        return record

    def table(self, results: HostResults) -> SampleTable:
        """The content of clean_probabilities.parquet after a scoring of all samples."""
        results.copies.wait()
        pair, tau = results.scoring.pair, self._config.cleaner.tau
        return SampleTable.of_cleaning(self._dataset.train, self._labels, pair, results.cleaning, tau)

    def write(self, results: HostResults, table: SampleTable) -> None:
        """Replace clean_probabilities.parquet and the scores files. RunError when a file cannot be written."""
        table.write(self._folder / CLEANING_FILE)
        if results.cleaning is not None and self._is_first(results.epoch):
            write_scores(self._folder / FIRST, results.scores)
        write_scores(self._folder / LAST, results.scores)

    def _is_first(self, epoch: int) -> bool:
        """Whether this epoch's cleaning is the first of the run."""
        return epoch == self._config.train.warmup_epochs


def summarise(history: dict[str, Any], device: torch.device, table: SampleTable, labels: Labels) -> dict[str, Any]:
    """summary.json: best, last-10 and final test accuracy in percent, seconds of all epochs, suspected labels.

    history: test_top1 of each epoch; FLOPs of all epochs (null: unknown); seconds of all epochs, without loading the
    data, checkpoints and the final cleaning; best_epoch. suspected: number of suspected labels. suspected_precision:
    share of them that are wrong; suspected_recall: share of the wrong labels that are suspected; both among samples
    with a true label, if any.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    suspected_N = table.suspected()
    top1 = history["test_top1"]
    summary = {
        "best_top1": max(top1),
        "best_epoch": history["best_epoch"],
        "last10_top1": float(np.mean(top1[-10:])),
        "final_top1": top1[-1],
        "epochs": len(top1),
        "seconds": history["seconds"],
        "training_flops": history.get("flops"),
        "world_size": distributed.world_size(),
        "device": name,
        "suspected": int(suspected_N.sum()),
        "finished": True,
    }
    if labels.known is not None:
        known_N = labels.known >= 0
        wrong_N = (labels.given != labels.known)[known_N]
        precision, recall, _ = precision_recall_accuracy(suspected_N[known_N], wrong_N)
        summary |= {"suspected_precision": precision, "suspected_recall": recall}
    return summary


def describe_suspects(summary: dict[str, Any], num_samples: int) -> str:
    """The suspected labels of a summary as one line of text."""
    text = f"{summary['suspected']} of {num_samples} labels are suspected to be wrong"
    precision, recall = summary.get("suspected_precision"), summary.get("suspected_recall")
    if precision is not None:
        text += f"; {100 * precision:.1f} % of them are"
    if recall is not None:
        text += f"; {100 * recall:.1f} % of all wrong labels are among them"
    return text
