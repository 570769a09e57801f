"""SGD on the prototype loss over kept features: so many small steps that what surrounds the arithmetic decides.

A pass over a small data set is a few dozen steps on 64 rows each, repeated 32 times an epoch: on a CPU autograd and the
many little operations of a loss on 64 rows cost several times its arithmetic. But eqs. 2-5 of CPC are, for a fixed
batch, weighted sums (-log sg(s) = softplus(s) - s, and -log(1 - sg(s)) = softplus(s)):

    L_C = sum_ik A_ik softplus(s_ik) - B_ik s_ik

so that dL_C/dS = A * sg(S) - B, and A and B follow from labels and sets alone: they are laid out for many steps at
once, and a step is a handful of matrix products. On a GPU the fused kernel of ``prototype_loss`` does a step; it is
also what the tests hold this form to.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastcpc.kernels import prototype_loss
from fastcpc.models.network import Network

CHUNK = 2**22  # most elements of A, or of features, that are laid out at a time


def descend(
    network: Network,
    optimizer: torch.optim.Optimizer,
    feat_ND: Tensor,
    labels_N: Tensor,
    clean_N: Tensor,
    pseudo_N: Tensor,
    batches: list[Tensor],
    alpha: float,
) -> None:
    """A step of the optimiser on L_C for each batch, in order; changes the projector and the prototypes.

    feat_ND: (N, D) floating. labels_N: (N,) int64. clean_N: (N,) bool. pseudo_N: (N,) int64, -1 outside P. batches:
    index tensors of one length B, int64, on the CPU. alpha: weight of L_P.
    """
    if feat_ND.is_cuda:
        for index in batches:
            index_B = index.to(feat_ND.device, non_blocking=True)
            embeddings_BE = network.embed(feat_ND[index_B].float())
            optimizer.zero_grad(set_to_none=True)
            prototype_loss(
                embeddings_BE,
                network.prototype_matrix(),
                labels_N[index_B],
                clean_N[index_B],
                pseudo_N[index_B],
                alpha=alpha,
            ).backward()
            optimizer.step()
        return
    backward = _LinearBackward(network) if _is_plain(network) else _AutogradBackward(network)
    num_classes = network.num_classes
    for chunk_SB in _chunks(batches, max(num_classes, feat_ND.shape[1])):
        feat_SBD = feat_ND[chunk_SB].float()
        weight_SBK, target_SBK = loss_weights(
            labels_N[chunk_SB], clean_N[chunk_SB], pseudo_N[chunk_SB], num_classes, alpha
        )
        for feat_BD, weight_BK, target_BK in zip(
            feat_SBD.unbind(), weight_SBK.unbind(), target_SBK.unbind(), strict=True
        ):
            backward(feat_BD, weight_BK, target_BK)
            optimizer.step()


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


class _AutogradBackward:
    """Gradients of any head: dL_C/dS by hand, the rest by autograd."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.parameters = network.prototype_parameters()

    def __call__(self, feat_BD: Tensor, weight_BK: Tensor, target_BK: Tensor) -> None:
        embeddings_BE, prototypes_KE = self.network.embed(feat_BD), self.network.prototype_matrix()
        with torch.no_grad():
            grad_BK = torch.sigmoid(embeddings_BE @ prototypes_KE.T).mul_(weight_BK).sub_(target_BK)
            grads = [grad_BK @ prototypes_KE, grad_BK.T @ embeddings_BE]
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward([embeddings_BE, prototypes_KE], grads)


class _LinearBackward:
    """Gradients of the plain head (one linear layer, raw dot products), written out; gradients are kept in place."""

    def __init__(self, network: Network) -> None:
        projector = network.head.projector
        assert isinstance(projector, nn.Linear)
        self.weight_ED, self.bias_E, self.prototypes_KE = projector.weight, projector.bias, network.head.prototypes
        for parameter in network.prototype_parameters():
            parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def __call__(self, feat_BD: Tensor, weight_BK: Tensor, target_BK: Tensor) -> None:
        embeddings_BE = torch.addmm(self.bias_E, feat_BD, self.weight_ED.T)
        grad_BK = torch.mm(embeddings_BE, self.prototypes_KE.T).sigmoid_().mul_(weight_BK).sub_(target_BK)
        grad_BE = torch.mm(grad_BK, self.prototypes_KE)
        torch.mm(grad_BK.T, embeddings_BE, out=self.prototypes_KE.grad)
        torch.mm(grad_BE.T, feat_BD, out=self.weight_ED.grad)
        torch.sum(grad_BE, 0, out=self.bias_E.grad)


def _is_plain(network: Network) -> bool:
    return isinstance(network.head.projector, nn.Linear) and network.head.log_scale is None


def _chunks(batches: list[Tensor], row_size: int) -> Iterator[Tensor]:
    """Batches stacked to (S, B), as many at a time as CHUNK allows."""
    rows = max(1, CHUNK // (len(batches[0]) * row_size)) if batches else 1
    for start in range(0, len(batches), rows):
        yield torch.stack(batches[start : start + rows])
