"""The prototype loss in plain PyTorch: the CPU's form, and the peer that the Triton form is measured against.

logits_BK = V C' are formed whole, once; no one-hot matrix is. The gradient is written out beside the loss instead of
left to autograd: each term's derivative is a sigmoid that the loss needs anyhow, and on a CPU, where a training batch
is 64 rows, autograd's bookkeeping costs several times the arithmetic. Every log sg(s) is logsigmoid(s) and every
log(1 - sg(s)) logsigmoid(-s), which neither overflow nor cancel at logits of +-1e4.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from .prototype_checks import accumulation_dtype

SCORE_ROWS = 65_536  # rows whose prototypes are gathered at a time


class PrototypeLossTorch(torch.autograd.Function):
    """``prototype_loss`` on arguments that were checked, outside autocast; differentiable once, never waits for the
    device. Loss and both gradients come in the forward pass; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        prototypes: Tensor,
        labels: Tensor,
        clean: Tensor,
        pseudo_labels: Tensor | None,
        alpha: float,
        neg_weight: float,
        set_sizes: Tensor | None,
    ) -> Tensor:
        dtype = accumulation_dtype(embeddings, prototypes)
        embeddings_BE, prototypes_KE = embeddings.to(dtype), prototypes.to(dtype)
        logits_BK = embeddings_BE @ prototypes_KE.T
        label_B1 = labels[:, None]
        given_B = logits_BK.gather(1, label_B1)[:, 0]
        in_p = None if pseudo_labels is None else pseudo_labels >= 0
        if set_sizes is None:
            num_clean = clean.sum()
            num_pseudo = num_clean if in_p is None else in_p.sum()
            sizes_3 = torch.stack([num_clean, clean.shape[0] - num_clean, num_pseudo])
        else:
            sizes_3 = set_sizes
        # An empty set's sum is 0 whatever it is divided by.
        share_3 = sizes_3.to(dtype).clamp(min=1).reciprocal()
        share_x_B = clean * share_3[0]
        share_u_B = ~clean * share_3[1]

        # The label's own column leaves the negatives as -inf: logsigmoid(inf) is 0, and so is sigmoid(-inf).
        others_BK = logits_BK.scatter(1, label_B1, -torch.inf)
        negatives_B = logsigmoid(-others_BK).sum(1)
        loss = -(share_x_B * (logsigmoid(given_B) + neg_weight * negatives_B) + share_u_B * logsigmoid(-given_B)).sum()
        grad_BK = torch.sigmoid(others_BK) * (neg_weight * share_x_B)[:, None]
        grad_given_B = share_u_B * torch.sigmoid(given_B) - share_x_B * torch.sigmoid(-given_B)
        grad_BK.scatter_(1, label_B1, grad_given_B[:, None])
        if pseudo_labels is not None and in_p is not None:
            pseudo_B1 = pseudo_labels.clamp(min=0)[:, None]
            pseudo_B = logits_BK.gather(1, pseudo_B1)[:, 0]
            share_p_B = in_p * (alpha * share_3[2])
            loss = loss - (share_p_B * logsigmoid(pseudo_B)).sum()
            grad_BK.scatter_add_(1, pseudo_B1, (-share_p_B * torch.sigmoid(-pseudo_B))[:, None])
        # Kept unrounded: a float16 gradient would underflow before a loss scale, which comes with grad, can lift it.
        ctx.save_for_backward(
            grad_BK @ prototypes_KE if ctx.needs_input_grad[0] else None,
            grad_BK.T @ embeddings_BE if ctx.needs_input_grad[1] else None,
        )
        ctx.dtypes = embeddings.dtype, prototypes.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = (None if kept is None else (kept * grad).to(dtype) for kept, dtype in pairs)
        return (*scaled, *(None,) * 6)


def prototype_scores_torch(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
    """``prototype_scores`` on arguments that were checked."""
    dtype = accumulation_dtype(embeddings, prototypes)
    scores = torch.empty(embeddings.shape[0], dtype=dtype, device=embeddings.device)
    for start in range(0, embeddings.shape[0], SCORE_ROWS):
        rows = slice(start, start + SCORE_ROWS)
        own_BE = prototypes[labels[rows]].to(dtype)
        torch.sigmoid((embeddings[rows].to(dtype) * own_BE).sum(1), out=scores[rows])
    return scores
