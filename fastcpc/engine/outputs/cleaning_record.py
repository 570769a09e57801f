"""What a cleaning says of the training samples: judged by trusted labels where there are any, and written as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fastcpc import distributed
from fastcpc.cleaner.gmm import fit_of
from fastcpc.config.schema import Config
from fastcpc.data.dataset import Dataset
from fastcpc.data.labels.noise import Labels
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.learner import Learner
from fastcpc.engine.outputs.cleaning_metrics import agreement_metrics, cleaning_metrics, loss_metrics
from fastcpc.engine.outputs.run_summary import Column, clean_columns
from fastcpc.engine.outputs.sample_table import write_clean_probabilities
from fastcpc.engine.outputs.score_file import FIRST, LAST, score_arrays, write_scores
from fastcpc.engine.scoring import ScoringResult


class CleaningRecord:
    """Of one run: its settings, samples and labels, and the folder that files are written into."""

    def __init__(self, config: Config, dataset: Dataset, labels: Labels, folder: Path) -> None:
        self._config, self._dataset, self._labels, self._folder = config, dataset, labels, folder

    def judge(self, cleaning: Cleaning, scoring: ScoringResult, epoch: int) -> dict[str, Any]:
        """The epoch's numbers about the cleaner; those that need trusted labels only where there are any."""
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
            if self._is_first(epoch):  # the end of the warm-up is where Fig. 1 looks
                record |= loss_metrics(scoring, given_N, trusted_N, self._dataset.num_classes)
        return record

    def write(
        self,
        cleaning: Cleaning | None,
        scoring: ScoringResult,
        learners: Sequence[Learner],
        labels_N: Tensor,
        epoch: int,
    ) -> dict[str, Column]:
        """Write clean_probabilities.parquet and the scores files anew; returns the former's columns.

        collected: of all samples. labels_N: their given labels, on the device. Every rank must call, rank 0 writes.
        RunError when a file cannot be written.
        """
        columns = clean_columns(self._dataset.train, self._labels, scoring.pair, cleaning, self._config.cleaner.tau)
        arrays = score_arrays(
            learners,
            scoring,
            cleaning,
            labels_N,
            num_classes=self._dataset.num_classes,
            epoch=epoch,
            fit_mixtures=fit_of(self._config.parallel.mixture, scoring.shard),
        )

        def write_files() -> None:
            write_clean_probabilities(self._folder / "clean_probabilities.parquet", columns)
            if cleaning is not None and self._is_first(epoch):
                write_scores(self._folder / FIRST, arrays)
            write_scores(self._folder / LAST, arrays)

        distributed.on_rank0(write_files)
        return columns

    def _is_first(self, epoch: int) -> bool:
        """Whether this epoch's cleaning is the first of the run."""
        return epoch == self._config.train.warmup_epochs
