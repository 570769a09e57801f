"""MixUp (Zhang et al. 2018) as MixMatch uses it: the sample itself always outweighs its partner."""

import numpy as np
import torch
from torch import Tensor


def mix_weight(alpha: float, generator: torch.Generator) -> float:
    """Draw the weight of the sample itself, max(lam, 1 - lam) with lam ~ Beta(alpha, alpha).

    alpha: above 0; generator: CPU generator, of which one number is drawn. Returns a number in [0.5, 1].
    Source: DivideMix, section 3.2; MixMatch, eqs. 8 and 9.
    """
    # PyTorch's beta distribution takes no generator, so a seed is drawn for NumPy's.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    lam = float(np.random.default_rng(seed).beta(alpha, alpha))
    return max(lam, 1.0 - lam)


def mixup(inputs: Tensor, targets: Tensor, lam: Tensor, permutation: Tensor) -> tuple[Tensor, Tensor]:
    """Mix the first samples of a batch, and their targets, with partners out of the whole batch.

    inputs: (M, ...) floating; targets: (M, K) floating; lam: 0-d floating in [0, 1], weight of the sample itself;
    permutation: (P,) int64 in [0, M), P <= M: sample i < P is mixed with sample permutation[i].
    Returns the mixed inputs (P, ...) and targets (P, K). Source: MixMatch, eqs. 10 and 11.
    """
    num_mixed = permutation.shape[0]
    partner_inputs = inputs.index_select(0, permutation)
    partner_targets = targets.index_select(0, permutation)
    return (
        lam * inputs[:num_mixed] + (1.0 - lam) * partner_inputs,
        lam * targets[:num_mixed] + (1.0 - lam) * partner_targets,
    )
