"""The results of cleanings: metrics against true labels, the files per sample, and the summary of a finished run."""

from collections.abc import Sequence
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
from fastcpc.engine.outputs.cleaning_metrics import agreement_metrics, cleaning_metrics, loss_metrics
from fastcpc.engine.outputs.sample_table import CLEANING_FILE, SampleTable
from fastcpc.engine.outputs.score_file import FIRST, LAST, score_arrays, write_scores
from fastcpc.engine.scoring import ScoringResult


class CleaningRecord:
    """Measures and writes the cleanings of one run. folder: of the run."""

    def __init__(self, config: Config, dataset: Dataset, labels: Labels, folder: Path) -> None:
        self._config, self._dataset, self._labels, self._folder = config, dataset, labels, folder

    def metrics(self, cleaning: Cleaning, scoring: ScoringResult, epoch: int) -> dict[str, Any]:
        """Metrics of an epoch's cleaning; without true labels only the agreement of the cleaners."""
        tau = self._config.cleaner.tau
        record = agreement_metrics(cleaning, tau)
        given_N, trusted_N = self._labels.given, self._labels.known
        if trusted_N is not None:
            if scoring.rows is not None:
                rows = scoring.rows.cpu().numpy()
                given_N, trusted_N = given_N[rows], trusted_N[rows]
            if not (trusted_N >= 0).any():
                return record
            record |= cleaning_metrics(cleaning, given_N, trusted_N, tau)
            if self._is_first(epoch):  # Fig. 1 shows the losses after the warm-up
                record |= loss_metrics(scoring, given_N, trusted_N, self._dataset.num_classes)
        return record

    def write(
        self,
        cleaning: Cleaning | None,
        scoring: ScoringResult,
        learners: Sequence[Learner],
        labels_N: Tensor,
        epoch: int,
    ) -> SampleTable:
        """Replace clean_probabilities.parquet and the scores files; returns the former's content.

        scoring: of all samples. labels_N: their given labels, on the device. Every rank must call, rank 0 writes.
        RunError when a file cannot be written.
        """
        tau = self._config.cleaner.tau
        table = SampleTable.of_cleaning(self._dataset.train, self._labels, scoring.pair, cleaning, tau)
        arrays = score_arrays(
            learners,
            scoring,
            cleaning,
            labels_N,
            num_classes=self._dataset.num_classes,
            epoch=epoch,
            has_prototypes=prototype_similarity(self._config.cleaner.kind) is not None,
            shard=scoring.shard if self._config.parallel.mixture == "summed" else None,
        )

        def write_files() -> None:
            table.write(self._folder / CLEANING_FILE)
            if cleaning is not None and self._is_first(epoch):
                write_scores(self._folder / FIRST, arrays)
            write_scores(self._folder / LAST, arrays)

        distributed.on_rank0(write_files)
        return table

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
