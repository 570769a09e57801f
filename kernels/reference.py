"""The formulas, line by line, for reading and as truth in float64. It is slow; training does not call it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def prototype_loss_reference(
    embeddings: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    clean: Tensor,
    pseudo_labels: Tensor | None = None,
    *,
    alpha: float = 1.0,
    neg_weight: float | None = None,
    set_sizes: Tensor | None = None,
) -> Tensor:
    """L_C of eqs. 2-5 (CPC, arXiv version), sample by sample, in the dtype of its input.

    Arguments as ``fastcpc.kernels.prototype_loss``. log sg(s) is logsigmoid(s), log(1 - sg(s)) is logsigmoid(-s).
    """
    num_classes = prototypes.shape[0]
    neg_weight = 1.0 / num_classes if neg_weight is None else neg_weight
    zero = (embeddings.sum() + prototypes.sum()) * 0.0  # so that empty sets still give gradients, all 0
    sum_x, sum_u, sum_p = zero, zero, zero
    size_x, size_u, size_p = 0.0, 0.0, 0.0
    for i, (label, is_clean) in enumerate(zip(labels.tolist(), clean.tolist(), strict=True)):
        s_K = prototypes @ embeddings[i]
        if is_clean:  # eq. 2
            size_x += 1
            sum_x = sum_x + logsigmoid(s_K[label])
            for k in range(num_classes):
                if k != label:
                    sum_x = sum_x + neg_weight * logsigmoid(-s_K[k])
        else:  # eq. 3
            size_u += 1
            sum_u = sum_u + logsigmoid(-s_K[label])
        pseudo = -1 if pseudo_labels is None else int(pseudo_labels[i])
        if pseudo >= 0:  # eq. 4
            size_p += 1
            sum_p = sum_p + logsigmoid(s_K[pseudo])
    if set_sizes is not None:
        size_x, size_u, size_p = (float(size) for size in set_sizes)
    loss_x = -sum_x / size_x if size_x else zero
    loss_u = -sum_u / size_u if size_u else zero
    loss_p = -sum_p / size_p if size_p else zero
    return loss_x + loss_u + alpha * loss_p  # eq. 5


def prototype_scores_reference(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
    """q(z = 0) = sg(v'_i . c_{y_i}), sample by sample, in the dtype of its input."""
    rows = [torch.sigmoid(embeddings[i] @ prototypes[label]) for i, label in enumerate(labels.tolist())]
    return torch.stack(rows) if rows else embeddings.new_zeros(0)


def em_reference(
    values: Sequence[float],
    means: Sequence[float],
    variances: Sequence[float],
    weights: Sequence[float],
    *,
    max_iter: int,
    tol: float,
    reg_covar: float,
) -> tuple[list[float], list[float], list[float], float, int, bool]:
    """One two-component 1-D mixture by EM, number by number: means, variances, weights, lower bound, n_iter, converged.

    The same steps in the same order as scikit-learn's GaussianMixture. The bound of an iteration is taken before its
    M step, and an iteration whose bound moved by less than ``tol`` is the last.
    """
    mean, variance, weight = list(means), list(variances), list(weights)
    bound = -math.inf
    for n_iter in range(1, max_iter + 1):
        previous, total = bound, 0.0
        resp_N2 = []
        for x in values:
            log_2 = [
                math.log(weight[c]) - 0.5 * (math.log(2 * math.pi * variance[c]) + (x - mean[c]) ** 2 / variance[c])
                for c in (0, 1)
            ]
            top = max(log_2)
            log_sum = top + math.log(sum(math.exp(value - top) for value in log_2))
            resp_N2.append([math.exp(value - log_sum) for value in log_2])
            total += log_sum
        bound = total / len(values)
        for c in (0, 1):
            size = math.fsum(resp[c] for resp in resp_N2) + 10 * 2.220446049250313e-16
            mean[c] = math.fsum(resp[c] * x for resp, x in zip(resp_N2, values, strict=True)) / size
            spread = math.fsum(resp[c] * (x - mean[c]) ** 2 for resp, x in zip(resp_N2, values, strict=True))
            variance[c] = spread / size + reg_covar
            weight[c] = size
        weight = [w / sum(weight) for w in weight]
        if abs(bound - previous) < tol:
            return mean, variance, weight, bound, n_iter, True
    return mean, variance, weight, bound, max_iter, False
