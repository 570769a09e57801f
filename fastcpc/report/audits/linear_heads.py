"""Two linear heads that predict as an audit does, for the checkpoint of its run folder.

``audit`` returns probabilities. fastcpc-eval and fastcpc-train load networks. So each head is fitted to the
log-probabilities by least squares, one to the even and one to the odd rows.
"""

import numpy as np
import torch
from torch import Tensor

from fastcpc.arrays import Floats
from fastcpc.data.embeddings.array_file import EmbeddingArray

PIECE = 8192
SMALLEST = 1e-4  # smaller probabilities are noise of the fit
RIDGE = 1e-3  # of the mean variance of a dimension


def fit_linear_heads(array: EmbeddingArray, prob_NK: Floats) -> list[tuple[Tensor, Tensor]]:
    """Weight (D, K) and bias (K,), float64, of both heads, for embeddings as they are in the file.

    array: (N, D). prob_NK: (N, K), rows sum to 1. The embeddings are read once, in pieces.
    """
    num, dim = array.shape
    grams = [torch.zeros(dim + 1, dim + 1, dtype=torch.float64) for _ in range(2)]
    sums = [torch.zeros(dim + 1, prob_NK.shape[1], dtype=torch.float64) for _ in range(2)]
    for first in range(0, num, PIECE):
        values = torch.from_numpy(np.asarray(array[first : first + PIECE]).astype(np.float32))
        values = torch.cat([values, torch.ones(len(values), 1)], dim=1)
        logs = torch.from_numpy(np.log(np.maximum(prob_NK[first : first + PIECE], SMALLEST)).astype(np.float32))
        logs -= logs.mean(1, keepdim=True)  # softmax does not change, and the fit need not explain it
        for half in range(2):
            rows = values[half::2]
            grams[half] += (rows.T @ rows).double()
            sums[half] += (rows.T @ logs[half::2]).double()
    return [_solve(gram, total) for gram, total in zip(grams, sums, strict=True)]


def _solve(gram: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    ridge = RIDGE * gram.diagonal()[:-1].mean()
    penalised = gram.clone()
    penalised.diagonal()[:-1].add_(ridge)
    penalised.diagonal()[-1].clamp_(min=1.0)
    solution = torch.linalg.solve(penalised, total)
    return solution[:-1], solution[-1]
