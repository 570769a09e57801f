"""The prototype loss in plain PyTorch: autograd's form, and the form of many small CPU steps on one linear head.

logits_BK = V C' are formed whole, once; no one-hot matrix is. The gradient is written out beside the loss instead of
left to autograd. Each term's derivative is a sigmoid that the loss needs too. On a CPU, where a training batch is 64
rows, autograd's bookkeeping costs several times the arithmetic. Every log sg(s) is logsigmoid(s) and every
log(1 - sg(s)) logsigmoid(-s), which neither overflow nor cancel at logits of +-1e4.

For a fixed batch eqs. 2-5 are weighted sums (-log sg(s) = softplus(s) - s, and -log(1 - sg(s)) = softplus(s)):

    L_C = sum_ik A_ik softplus(s_ik) - B_ik s_ik    so that    dL_C/dS = A * sg(S) - B

A and B follow from labels and sets alone. ``loss_weights`` computes them for many steps at once, and a step is a few
matrix products (``linear_head_backward``). cleaner/prototype_sgd.py trains by it on a CPU.
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


def loss_weights(
    labels_SB: Tensor, clean_SB: Tensor, pseudo_SB: Tensor, num_classes: int, alpha: float
) -> tuple[Tensor, Tensor]:
    """A and B of L_C for S batches at once, each set's mean taken within its batch; lambda_neg = 1/K (eqs. 2-5).

    labels_SB: (S, B) int64. clean_SB: (S, B) bool. pseudo_SB: (S, B) int64, -1 outside P. Returns two (S, B, K)
    float32.
    """
    in_p_SB = pseudo_SB >= 0
    share_x_SB = clean_SB / clean_SB.sum(1, keepdim=True).clamp_min(1)
    share_u_SB = ~clean_SB / (~clean_SB).sum(1, keepdim=True).clamp_min(1)
    share_p_SB1 = (alpha * in_p_SB / in_p_SB.sum(1, keepdim=True).clamp_min(1))[..., None]
    own_SB1, pseudo_SB1 = labels_SB[..., None], pseudo_SB.clamp_min(0)[..., None]
    weight_SBK = (share_x_SB / num_classes)[..., None].expand(-1, -1, num_classes).contiguous()
    weight_SBK.scatter_(2, own_SB1, (share_x_SB + share_u_SB)[..., None])
    weight_SBK.scatter_add_(2, pseudo_SB1, share_p_SB1)
    target_SBK = torch.zeros_like(weight_SBK).scatter_(2, own_SB1, share_x_SB[..., None])
    target_SBK.scatter_add_(2, pseudo_SB1, share_p_SB1)
    return weight_SBK, target_SBK


def loss_gradient(logits_BK: Tensor, weight_BK: Tensor, target_BK: Tensor) -> Tensor:
    """dL_C/dS = A * sg(S) - B of one batch, (B, K), written over the logits S; A and B from ``loss_weights``."""
    return logits_BK.sigmoid_().mul_(weight_BK).sub_(target_BK)


@torch.no_grad()
def linear_head_backward(
    feat_BD: Tensor,
    weight_BK: Tensor,
    target_BK: Tensor,
    projector_ED: Tensor,
    bias_E: Tensor,
    prototypes_KE: Tensor,
) -> None:
    """Overwrite the gradients of L_C in ``.grad`` of a linear projector and of prototypes compared by dot product.

    feat_BD: (B, D) float32, before the projector. weight_BK, target_BK: A and B of ``loss_weights``. The three
    parameters have gradients of their own shape already.
    """
    embeddings_BE = torch.addmm(bias_E, feat_BD, projector_ED.T)
    grad_BK = loss_gradient(torch.mm(embeddings_BE, prototypes_KE.T), weight_BK, target_BK)
    grad_BE = torch.mm(grad_BK, prototypes_KE)
    torch.mm(grad_BK.T, embeddings_BE, out=prototypes_KE.grad)
    torch.mm(grad_BE.T, feat_BD, out=projector_ED.grad)
    torch.sum(grad_BE, 0, out=bias_E.grad)
