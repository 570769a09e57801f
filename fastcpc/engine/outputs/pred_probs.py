"""pred_probs.npy and features.npy: predictions and features of every training sample, for other programs and reports.

Rank 0 writes batch by batch, so that the whole array is never in memory.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcpc import distributed
from fastcpc.atomic_io import replace_file_in_parts
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.scoring import ScoringResult, classify_exactly
from fastcpc.models.network import Network

PRED_PROBS_FILE = "pred_probs.npy"
FEATURES_FILE = "features.npy"
DIMS = 64  # of features.npy; a cosine of 0.95 then has a standard deviation of about 0.01


def write_pred_probs(
    path: Path, networks: Sequence[Network], scoring: ScoringResult, numerics: Numerics, batch_size: int
) -> None:
    """Write the mean softmax of both networks, float32 (N, K), row i of sample i; numpy.load reads it without pickle.

    The classifiers are applied again to the kept features of the scoring pass, in batches of batch_size as there.
    So N x K numbers are never in memory at once. Rank 0 writes, and every rank must call.
    RunError when the file cannot be written.
    """
    num_classes = networks[0].num_classes
    _write(path, scoring, "<f4", num_classes, batch_size, partial(_mean_softmax, networks, scoring, numerics))


def write_features(path: Path, scoring: ScoringResult, num_dims: int, numerics: Numerics, batch_size: int) -> None:
    """Write the features of network 1, float16 (N, <= DIMS), projected by ``project``; row i of sample i.

    num_dims: of the features. Rank 0 writes, and every rank must call. RunError when the file cannot be written.
    """
    width = min(num_dims, DIMS)
    _write(path, scoring, "<f2", width, batch_size, partial(_projected, scoring, num_dims, numerics))


def project(values_BD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values with more than DIMS dimensions projected to DIMS, by the same random matrix in every run and command."""
    dim = values_BD.shape[1]
    if dim <= DIMS:
        return values_BD
    matrix = np.random.default_rng(dim).standard_normal((dim, DIMS)) / math.sqrt(DIMS)
    return np.asarray(values_BD @ matrix.astype(np.float32))


def _write(
    path: Path, scoring: ScoringResult, dtype: str, width: int, batch_size: int, rows_of: Callable[[Tensor], Tensor]
) -> None:
    """Write an array (N, width). rows_of: a batch's rows on this rank (b, width), those of other ranks 0."""
    num_samples = len(scoring.pair.loss_N)
    position_N = scoring.shard.positions()

    def parts() -> Iterator[bytes]:
        yield _header(dtype, (num_samples, width))
        for start in range(0, num_samples, batch_size):
            rows = distributed.all_reduce_sum(rows_of(position_N[start : start + batch_size]), "scores")
            yield rows.cpu().numpy().astype(dtype).tobytes()

    remaining = parts()

    def write() -> None:
        try:
            replace_file_in_parts(path, remaining, 128 + np.dtype(dtype).itemsize * num_samples * width)
        finally:
            for _ in remaining:  # the other ranks go through all parts, also when the disk is full
                pass

    if not distributed.is_rank0():
        for _ in remaining:
            pass
    distributed.on_rank0(write)


@torch.no_grad()
def _mean_softmax(
    networks: Sequence[Network], scoring: ScoringResult, numerics: Numerics, position_B: Tensor
) -> Tensor:
    """A batch's rows on this rank, (B, K); position_B: their positions on this rank, or -1."""
    own = position_B >= 0
    prob_BK = torch.zeros(len(own), networks[0].num_classes, device=numerics.device)
    if own.any():
        probs = []
        for network, scores in zip(networks, scoring.networks, strict=True):
            network.eval()
            feat_bD = scores.feat_ND[position_B[own].to(scores.feat_ND.device)]
            probs.append(classify_exactly(network, feat_bD.to(numerics.device)).softmax(1))
        prob_BK[own.to(numerics.device)] = torch.stack(probs).mean(0)
    return prob_BK


def _projected(scoring: ScoringResult, num_dims: int, numerics: Numerics, position_B: Tensor) -> Tensor:
    """A batch's projected features on this rank; position_B: as above."""
    own = position_B >= 0
    feat_ND = scoring.networks[0].feat_ND
    values_BD = torch.zeros(len(own), min(num_dims, DIMS), device=numerics.device)
    if own.any():
        values_bD = feat_ND[position_B[own].to(feat_ND.device)].float().cpu().numpy()
        values_BD[own.to(numerics.device)] = torch.from_numpy(project(values_bD)).to(numerics.device)
    limit = torch.finfo(torch.float16).max  # only a diverged network has larger features
    return values_BD.nan_to_num_(0.0, limit, -limit).clamp_(-limit, limit)


def _header(dtype: str, shape: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
