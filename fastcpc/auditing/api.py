"""``audit``: finds wrong labels from frozen embeddings. ``from fastcpc import audit`` imports it.

Linear heads are trained out of fold on the given labels. One confusion matrix of true and given labels is estimated by
EM from their probabilities. The posterior of the true class is the target of the next round of heads.
"""

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.arrays import Ints
from fastcpc.auditing.checks import category_count, check_embeddings, check_labels, check_num_classes, check_seed
from fastcpc.auditing.confident import confident_labels
from fastcpc.auditing.evidence import estimate_noise
from fastcpc.auditing.heads import Heads, HeadSettings, draw_folds, train_heads
from fastcpc.auditing.result import AuditResult
from fastcpc.auditing.rows import EmbeddingRows
from fastcpc.auditing.score import RANDOM, find_suspects, label_score
from fastcpc.auditing.true_metrics import measure
from fastcpc.cleaner.confusion import ConfusionFit, fit_confusion
from fastcpc.data.rng import fold

ROUNDS = 3  # of heads on cleaned targets, after the heads on the given labels
LATER_EPOCHS = 1  # of these rounds, which train the heads of the round before further
LOW_RATE = 0.06  # share of wrong labels by the first posterior, below which one cleaned round is enough
MIN_STEPS = 140  # per round, for 1,280 dimensions; more for fewer dimensions
MIN_BATCHES, SMALL_BATCH = 24, 128  # of few samples: batches per epoch, and samples per batch where there are fewer
L2, MAX_L2 = 0.5, 0.2  # of the heads: per dimension and sample (D / N), and the bound for few samples


def audit(
    embeddings: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    true_labels: Any = None,
) -> AuditResult:
    """Audit the labels of frozen embeddings.

    embeddings: (N, D) float16, float32 or float64: NumPy, a memory map, or torch. labels: (N,) int in [0, K), or a
    categorical of pandas, whose codes are the classes. num_classes: K; None: the largest label plus 1, or the number of
    categories. true_labels: (N,) where known, for ``true_metrics`` only.
    Raises ValueError, which names the argument. Deterministic for a seed on a CPU with one number of threads.
    """
    began = time.perf_counter()
    embeddings = check_embeddings(embeddings)
    num_classes = category_count(labels) if num_classes is None else num_classes
    given_N = check_labels("labels", labels, len(embeddings), num_classes)
    classes, seed = check_num_classes(num_classes, given_N), check_seed(seed)
    true_N = None if true_labels is None else check_labels("true_labels", true_labels, len(given_N), classes)
    with torch.no_grad():
        rows = EmbeddingRows(embeddings)
        heads, fit, prob_NK, first_NK = _rounds(rows, torch.from_numpy(given_N), classes, seed)
    return _result(rows, heads, fit, (first_NK, prob_NK), given_N, true_N, began)


def _rounds(
    rows: EmbeddingRows, given_N: Tensor, classes: int, seed: int
) -> tuple[Heads, ConfusionFit, Tensor, Tensor]:
    """The heads and the fit of the last round, the probabilities (N, K) of that fit, and those of the first round.

    A fit uses the mean of the last two rounds: single rounds trust the given labels too little and too much in turn.
    A head keeps its fold in all rounds, so that it trains further from there, with a third of the steps.
    At low noise one cleaned round is enough; further ones rank worse. MixUp hinders heads from learning wrong labels
    that follow a pattern. Where labels are wrong at random, it costs accuracy. So the first round decides about it.
    """
    steps = min(600, round(MIN_STEPS * math.sqrt(1280 / rows.dim)))
    settings = HeadSettings(
        min_steps=max(steps, MIN_STEPS // 2),
        batch_size=min(max(len(given_N) // MIN_BATCHES, SMALL_BATCH), HeadSettings.batch_size),
        l2=min(L2 * rows.dim / len(given_N), MAX_L2),
    )
    fold_NR = draw_folds(given_N, settings, fold(seed, "audit"))
    given_NK = F.one_hot(given_N, classes).float()
    heads, prob_NK = _train(rows, given_NK, fold_NR, settings, fold(seed, "audit", 0))
    if confident_labels([prob_NK.numpy()], given_N.numpy()).structure > RANDOM:
        settings = replace(settings, mixup_alpha=1.0)
        heads, prob_NK = _train(rows, given_NK, fold_NR, settings, fold(seed, "audit", 0))
    fit, mean_NK, first_NK = fit_confusion(prob_NK, given_N), prob_NK, prob_NK
    noise_rate = 1 - float(fit.clean_probability(prob_NK, given_N).mean())
    later = replace(settings, epochs=LATER_EPOCHS, min_steps=settings.min_steps * LATER_EPOCHS // settings.epochs)
    for number in range(1, 1 + (1 if noise_rate < LOW_RATE else ROUNDS)):
        before_NK, target_NK = prob_NK, fit.posterior(mean_NK, given_N)
        heads, prob_NK = _train(rows, target_NK, fold_NR, later, fold(seed, "audit", number), heads)
        mean_NK = (before_NK + prob_NK).div_(2)
        fit = fit_confusion(mean_NK, given_N)
    return heads, fit, mean_NK, first_NK


def _train(
    rows: EmbeddingRows,
    target_NK: Tensor,
    fold_NR: Tensor,
    settings: HeadSettings,
    seed: int,
    start: Heads | None = None,
) -> tuple[Heads, Tensor]:
    """Heads of a round, and their out-of-fold probabilities (N, K). start: the heads of the round before."""
    heads = train_heads(rows, target_NK, fold_NR, settings, seed, start)
    return heads, heads.out_of_fold(rows)


def _result(
    rows: EmbeddingRows,
    heads: Heads,
    fit: ConfusionFit,
    probs: tuple[Tensor, Tensor],
    given_N: Ints,
    true_N: Ints | None,
    began: float,
) -> AuditResult:
    """probs: out-of-fold probabilities (N, K) of the first round, and those of the last fit."""
    prob_NK, labels_N = probs[1], torch.from_numpy(given_N)
    confident = confident_labels([part_NK.numpy() for part_NK in probs], given_N)
    own_N = fit.clean_probability(prob_NK, labels_N).numpy()
    noise = estimate_noise(own_N, given_N, confident)
    score_N = label_score(*probs, confident, labels_N).numpy()
    predicted_N = fit.posterior(prob_NK, labels_N).argmax(1).numpy()
    is_issue_N = find_suspects(score_N, predicted_N, given_N, noise.rate)
    metrics = {} if true_N is None else measure(score_N, is_issue_N, predicted_N, given_N, true_N)
    return AuditResult(
        label_score=score_N,
        clean_probability=own_N,
        predicted_label=predicted_N,
        is_label_issue=is_issue_N,
        pred_probs=prob_NK.numpy(),
        given_label=given_N,
        noise_rate=noise.rate,
        noise_interval=noise.interval,
        confusion_matrix=confident.matrix_KK,
        class_count=np.bincount(given_N, minlength=prob_NK.shape[1]).astype(np.int64),
        class_noise_rate=noise.class_rate_K,
        class_noise_interval=noise.class_interval_K2,
        has_evidence=noise.has_evidence,
        seconds=time.perf_counter() - began,
        true_metrics=metrics,
        heads=heads,
        rows=rows,
    )
