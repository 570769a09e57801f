"""pred_probs.npy: what both networks together predict for every training sample, for programs that want all classes."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastcpc import distributed
from fastcpc.atomic_io import replace_file_in_parts
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.scoring import ScoringResult
from fastcpc.models.network import Network

PRED_PROBS_FILE = "pred_probs.npy"


def write_pred_probs(
    path: Path, networks: Sequence[Network], scoring: ScoringResult, numerics: Numerics, batch_size: int
) -> None:
    """Write the mean softmax of both networks, float32 (N, K), row i of sample i; numpy.load reads it without pickle.

    The classifiers are applied again to the features that the scoring pass has kept. This is done in batches of
    batch_size, as in that pass, so that N x K numbers are never in memory at once. Rank 0 writes; every rank must call.
    RunError when the file cannot be written.
    """
    num_samples = len(scoring.pair.loss_N)
    shape = (num_samples, networks[0].num_classes)
    position_N = scoring.shard.positions()

    def parts() -> Iterator[bytes]:
        yield _header(shape)
        for start in range(0, num_samples, batch_size):
            yield _mean_softmax(networks, scoring, numerics, position_N[start : start + batch_size])

    remaining = parts()

    def write() -> None:
        try:
            replace_file_in_parts(path, remaining, 128 + 4 * num_samples * shape[1])
        finally:
            for _ in remaining:  # the other ranks go through all parts, also when the disk is full
                pass

    if not distributed.is_rank0():
        for _ in remaining:
            pass
    distributed.on_rank0(write)


@torch.no_grad()
def _mean_softmax(networks: Sequence[Network], scoring: ScoringResult, numerics: Numerics, position_B: Tensor) -> bytes:
    """A batch's rows, from the ranks that hold its features; position_B: their rows on this rank, -1 elsewhere."""
    own = position_B >= 0
    prob_BK = torch.zeros(len(own), networks[0].num_classes, device=numerics.device)
    if own.any():
        probs = []
        for network, scores in zip(networks, scoring.networks, strict=True):
            network.eval()
            with numerics.autocast():
                feat_bD = scores.feat_ND[position_B[own].to(scores.feat_ND.device)]
                logits_BK = network.classify(feat_bD.to(numerics.device))
            probs.append(logits_BK.float().softmax(1))
        prob_BK[own.to(numerics.device)] = torch.stack(probs).mean(0)
    return distributed.all_reduce_sum(prob_BK, "scores").cpu().numpy().astype("<f4").tobytes()


def _header(shape: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()
