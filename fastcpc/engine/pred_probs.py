"""pred_probs.npy: what both networks together predict for every training sample, for programs that want all classes."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from fastcpc.engine.atomic import replace_by_parts
from fastcpc.engine.collect import Collected
from fastcpc.engine.precision import Numerics
from fastcpc.models.network import Network

PRED_PROBS_FILE = "pred_probs.npy"


def write_pred_probs(
    path: Path, networks: Sequence[Network], collected: Collected, numerics: Numerics, batch_size: int
) -> None:
    """Write the mean softmax of both networks, float32 (N, K), row i of sample i; numpy.load reads it without pickle.

    The classifiers are applied again to the features that the scoring pass has kept, batch by batch (batch_size as in
    that pass), so that N x K numbers are never held at once. RunError when the file cannot be written.
    """
    num_samples = len(collected.pair.loss_N)
    shape = (num_samples, networks[0].num_classes)
    assert all(len(scores.feat_ND) == num_samples for scores in collected.networks), "features of every sample"

    def parts() -> Iterator[bytes]:
        yield _header(shape)
        for start in range(0, num_samples, batch_size):
            yield _mean_softmax(networks, collected, numerics, slice(start, start + batch_size))

    replace_by_parts(path, parts(), 128 + 4 * num_samples * shape[1])


@torch.no_grad()
def _mean_softmax(networks: Sequence[Network], collected: Collected, numerics: Numerics, rows: slice) -> bytes:
    probs = []
    for network, scores in zip(networks, collected.networks, strict=True):
        network.eval()
        with numerics.autocast():
            logits_BK = network.classify(scores.feat_ND[rows])
        probs.append(logits_BK.float().softmax(1))
    return torch.stack(probs).mean(0).cpu().numpy().astype("<f4").tobytes()


def _header(shape: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()
