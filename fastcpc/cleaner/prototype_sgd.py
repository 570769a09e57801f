"""SGD on the prototype loss over kept features: so many small steps that what surrounds the arithmetic decides.

A pass over a small data set is a few dozen steps on 64 rows each, repeated 32 times an epoch: on a CPU autograd and the
many little operations of a loss on 64 rows cost several times its arithmetic. But eqs. 2-5 of CPC are, for a fixed
batch, weighted sums (-log sg(s) = softplus(s) - s, and -log(1 - sg(s)) = softplus(s)):

    L_C = sum_ik A_ik softplus(s_ik) - B_ik s_ik

so that dL_C/dS = A * sg(S) - B, and A and B follow from labels and sets alone: they are laid out for many steps at
once, and a step is a handful of matrix products. On a GPU the fused kernel of ``prototype_loss`` does a step; it is
also what the tests hold this form to.

With several ranks features stay where they were computed. A batch's samples lie on several ranks, each of which adds
the gradient of those it has; which sets they are in, and how large the sets of the whole batch are, every rank knows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcpc.distributed import Shard, all_reduce_sum
from fastcpc.kernels import prototype_loss
from fastcpc.models.network import Network

CHUNK = 2**22  # most elements of A, or of features, that are laid out at a time


@dataclass(frozen=True)
class SampleSets:
    """What the loss knows of every sample, on every rank: labels_N (N,) int64 given labels; clean_N (N,) bool, in
    X_GMM; pseudo_N (N,) int64, -1 outside P; alpha: weight of L_P."""

    labels_N: Tensor
    clean_N: Tensor
    pseudo_N: Tensor
    alpha: float


def sgd_epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    feat_nD: Tensor,
    sets: SampleSets,
    batches: list[Tensor],
    shard: Shard,
) -> None:
    """A step of the optimiser on L_C for each batch, in order; changes the projector and the prototypes.

    feat_nD: (n, D) floating, of this rank's samples by ``shard``; in main memory or on the device. batches: index
    tensors of one length B, int64, on the CPU, the same on every rank.
    """
    if sets.labels_N.is_cuda:
        _sgd_epoch_on_device(network, optimizer, feat_nD, sets, batches, shard)
        return
    backward = _LinearBackward(network) if _is_plain(network) else _AutogradBackward(network)
    num_classes = network.num_classes
    position_N = shard.positions()
    for chunk_SB in _chunks(batches, max(num_classes, feat_nD.shape[1])):
        weight_SBK, target_SBK = loss_weights(
            sets.labels_N[chunk_SB], sets.clean_N[chunk_SB], sets.pseudo_N[chunk_SB], num_classes, sets.alpha
        )
        for step in _own_rows(feat_nD, chunk_SB, weight_SBK, target_SBK, position_N, shard):
            backward(*step)
            if not shard.is_whole:
                sum_gradients(network.prototype_parameters())
            optimizer.step()


def _own_rows(
    feat_nD: Tensor, chunk_SB: Tensor, weight_SBK: Tensor, target_SBK: Tensor, position_N: Tensor, shard: Shard
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features and both weights of each batch of a chunk, cut to the samples that lie on this rank."""
    if shard.is_whole:
        yield from zip(feat_nD[chunk_SB].float().unbind(), weight_SBK.unbind(), target_SBK.unbind(), strict=True)
        return
    for position_B, weight_BK, target_BK in zip(position_N[chunk_SB], weight_SBK, target_SBK, strict=True):
        own_B = position_B >= 0
        yield feat_nD[position_B[own_B]].float(), weight_BK[own_B], target_BK[own_B]


def _sgd_epoch_on_device(
    network: Network,
    optimizer: torch.optim.Optimizer,
    feat_nD: Tensor,
    sets: SampleSets,
    batches: list[Tensor],
    shard: Shard,
) -> None:
    position_N, device = shard.positions(), sets.labels_N.device
    for index in batches:
        optimizer.zero_grad(set_to_none=True)
        own = index if shard.is_whole else index[position_N[index] >= 0]
        index_B = own.to(device, non_blocking=True)
        if len(own):
            prototype_loss(
                network.embed(kept_rows(feat_nD, own if shard.is_whole else position_N[own], device)),
                network.prototype_matrix(),
                sets.labels_N[index_B],
                sets.clean_N[index_B],
                sets.pseudo_N[index_B],
                alpha=sets.alpha,
                set_sizes=None if shard.is_whole else set_sizes(index.to(device, non_blocking=True), sets),
            ).backward()
        if not shard.is_whole:
            sum_gradients(network.prototype_parameters())
        optimizer.step()


def kept_rows(feat_nD: Tensor, position_P: Tensor, device: torch.device) -> Tensor:
    """Some rows of the kept features, float32 (P, D) on the device, wherever they are kept.

    position_P: int64 (P,) on the CPU.
    """
    rows_PD = feat_nD[position_P.to(feat_nD.device, non_blocking=True)]
    return rows_PD.to(device, non_blocking=True).float()


def set_sizes(index_B: Tensor, sets: SampleSets) -> Tensor:
    """|X|, |U| and |P| of a whole batch, (3,) int64: every rank knows them without asking."""
    num_clean, num_pseudo = sets.clean_N[index_B].sum(), (sets.pseudo_N[index_B] >= 0).sum()
    return torch.stack([num_clean, len(index_B) - num_clean, num_pseudo])


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their sum over the ranks; a rank that had no sample of the batch has none, and adds 0."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    summed = all_reduce_sum(torch.cat([grad.reshape(-1) for grad in grads]), "prototypes")
    for grad, part in zip(grads, summed.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


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
