"""What a cleaning saw and found, sample by sample: enough to draw it later without training again."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcpc.atomic_io import replace_file
from fastcpc.cleaner.gmm import fit_mixtures
from fastcpc.cleaner.loss_history import min_max
from fastcpc.distributed import Shard
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.learner import Learner
from fastcpc.engine.scoring import ScoringResult
from fastcpc.kernels import MixtureFit

FIRST, LAST = "scores_first.npz", "scores_last.npz"  # of the first cleaning, at the warm-up's end; of the latest one
MOST_EMBEDDINGS = 5_000

Arrays = dict[str, NDArray[Any]]


@torch.no_grad()
def score_arrays(
    learners: Sequence[Learner],
    scoring: ScoringResult,
    cleaning: Cleaning | None,
    labels_N: Tensor,
    *,
    num_classes: int,
    epoch: int,
    shard: Shard | None = None,
) -> Arrays:
    """The arrays of a scores file; axis 0 of all but ``epoch`` and ``rows`` is network 1, network 2.

    epoch: 0-d int64, the epoch it was before (the number of epochs: after the last). loss: (2, N) float32 cross entropy
    with the given label. values: (2, N) float32 in [0, 1], the normalised (and averaged) losses that mixtures are
    fitted to. agn_means, agn_variances, agn_weights: (2, 1, 2) float64, the mixture of all samples, the smaller mean
    first; awr_*: (2, K, 2), one for each given label; NaN where there is no fit. Both are there whichever of them the
    cleaner uses. q_NAME: (2, N) float32 clean probabilities of each cleaner. shard: as ``fit_mixtures``. With q_cpc
    also rows: (M,) int64, M <= 5,000 samples spread evenly, embeddings: (2, M, d) float32 and prototypes:
    (2, K, d) float32.
    """
    loss_2N = torch.stack([scores.loss_N for scores in scoring.networks])
    arrays: Arrays = {"epoch": np.array(epoch, np.int64), "loss": _numpy(loss_2N)}
    if bool(loss_2N.isfinite().all()):
        fits = cleaning.mixtures if cleaning is not None else [{}, {}]
        arrays |= _mixture_arrays(learners, loss_2N, labels_N, num_classes, fits, shard)
    probs = cleaning.clean_probs if cleaning is not None else {}
    arrays |= {f"q_{name}": _numpy(torch.stack(both)) for name, both in probs.items()}
    if "cpc" in probs:
        arrays |= _embedding_arrays(learners, scoring)
    return arrays


def write_scores(path: Path, arrays: Arrays) -> None:
    """Write a scores file, which numpy.load reads with allow_pickle=False. RunError when it cannot be written."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    replace_file(path, buffer.getvalue())


def _mixture_arrays(
    learners: Sequence[Learner],
    loss_2N: Tensor,
    labels_N: Tensor,
    num_classes: int,
    fits: Sequence[Mapping[str, MixtureFit]],
    shard: Shard | None,
) -> Arrays:
    """Normalised losses and both kinds of mixtures; a kind that the cleaner has not fitted is fitted here."""
    arrays: dict[str, list[NDArray[Any]]] = {"values": []}
    for learner, loss_N, fitted in zip(learners, loss_2N, fits, strict=True):
        # a cleaner without a mixture keeps no history of losses
        values_N = learner.history_LN.mean(0) if len(learner.history_LN) else min_max(loss_N)
        arrays["values"].append(_numpy(values_N))
        for name, groups_N, num_groups in (
            ("agn", torch.zeros_like(labels_N), 1),
            ("awr", labels_N, num_classes),
        ):
            fit = fitted.get(name) or fit_mixtures(values_N, groups_N, num_groups, shard)
            for part in ("means", "variances", "weights"):
                arrays.setdefault(f"{name}_{part}", []).append(getattr(fit, part).cpu().numpy())
    return {name: np.stack(parts) for name, parts in arrays.items()}


def _embedding_arrays(learners: Sequence[Learner], scoring: ScoringResult) -> Arrays:
    num_samples = len(scoring.pair.loss_N)
    rows = np.linspace(0, num_samples - 1, min(num_samples, MOST_EMBEDDINGS)).astype(np.int64)
    embeddings, prototypes = [], []
    for i, learner in enumerate(learners):
        feat_MD = scoring.features(i, torch.from_numpy(rows))
        embeddings.append(_numpy(learner.network.embed(feat_MD)))
        prototypes.append(_numpy(learner.network.prototype_matrix()))
    return {"rows": rows, "embeddings": np.stack(embeddings), "prototypes": np.stack(prototypes)}


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
