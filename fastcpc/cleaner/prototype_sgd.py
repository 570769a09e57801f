"""SGD on the prototype loss (CPC, eqs. 2-5) over kept features; ``prototypes.train_prototypes`` calls it.

A pass over a small data set is a few dozen steps of 64 rows. On a CPU the gradients come from the closed form in
kernels/prototype_torch.py, because autograd would cost several times the arithmetic. On a GPU each step is one call of
``prototype_loss``; tests compare the two. From a head's second pass on, on_device/head_graphs.py replays these steps.

With several ranks features stay on the rank that computed them. Each rank adds the gradient of its own samples of a
batch. Every rank knows the sets of all samples, and so the sizes of a whole batch's sets.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcpc.cleaner.on_device import head_graphs
from fastcpc.distributed import Shard, all_reduce_sum
from fastcpc.kernels import prototype_loss
from fastcpc.kernels.prototype_torch import linear_head_backward, loss_gradient, loss_weights
from fastcpc.models.network import Network

CHUNK = 2**22  # most elements of A, or of features, that are laid out at a time


@dataclass(frozen=True)
class SampleSets:
    """The labels of every sample, on every rank.

    labels_N: (N,) int64 given labels. clean_N: (N,) bool, in X_GMM. pseudo_N: (N,) int64, -1 outside P. alpha: weight
    of L_P.
    """

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
    backward = _backward(network)
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
    """Features and both weights of each batch of a chunk, restricted to the samples of this rank."""
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
    if shard.is_whole and batches:
        _whole_epoch_on_device(network, optimizer, feat_nD, sets, torch.stack(batches))
        return
    position_N, device = shard.positions(), sets.labels_N.device
    for index in batches:
        optimizer.zero_grad(set_to_none=True)
        own = index[position_N[index] >= 0]
        index_B = own.to(device, non_blocking=True)
        if len(own):
            prototype_loss(
                network.embed(kept_rows(feat_nD, position_N[own], device)),
                network.prototype_matrix(),
                sets.labels_N[index_B],
                sets.clean_N[index_B],
                sets.pseudo_N[index_B],
                alpha=sets.alpha,
                set_sizes=set_sizes(index.to(device, non_blocking=True), sets),
            ).backward()
        sum_gradients(network.prototype_parameters())
        optimizer.step()


def _whole_epoch_on_device(
    network: Network, optimizer: torch.optim.Optimizer, feat_nD: Tensor, sets: SampleSets, index_SB: Tensor
) -> None:
    """With one rank: the batches of all steps travel in one copy, and labels and sets are looked up once.

    With features on the device, runs of steps are replayed as CUDA graphs.
    """
    device, (num_steps, batch) = sets.labels_N.device, index_SB.shape

    def step(feat_BD: Tensor, labels_B: Tensor, clean_B: Tensor, pseudo_B: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        embeddings, prototypes = network.embed(feat_BD.float()), network.prototype_matrix()
        prototype_loss(embeddings, prototypes, labels_B, clean_B, pseudo_B, alpha=sets.alpha).backward()
        optimizer.step()

    sent_SB = index_SB.to(device, non_blocking=True)
    sets_3N = torch.stack([sets.labels_N, sets.clean_N.long(), sets.pseudo_N])
    sets_3SB = sets_3N.index_select(1, sent_SB.flatten()).view(3, num_steps, batch)
    if head_graphs.replayed(optimizer, step, feat_nD, sent_SB, sets_3SB, (sets.alpha,)):
        return
    rows_SB = index_SB if feat_nD.device.type == "cpu" else sent_SB
    each = zip(rows_SB, sets_3SB[0], sets_3SB[1].bool(), sets_3SB[2], strict=True)
    for rows_B, labels_B, clean_B, pseudo_B in each:
        step(kept_rows(feat_nD, rows_B, device), labels_B, clean_B, pseudo_B)


def kept_rows(feat_nD: Tensor, position_P: Tensor, device: torch.device) -> Tensor:
    """Some rows of the kept features, float32 (P, D) on the device, wherever they are kept.

    position_P: int64 (P,) on the CPU, or on the device if the features are there.
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


def _backward(network: Network) -> Callable[[Tensor, Tensor, Tensor], None]:
    """A function of features (B, D), A and B (B, K) that sets the gradients of the network's head."""
    projector, head, parameters = network.head.projector, network.head, network.prototype_parameters()
    if isinstance(projector, nn.Linear) and head.log_scale is None:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        weight_ED, bias_E = projector.weight, projector.bias
        return lambda feat_BD, weight_BK, target_BK: linear_head_backward(
            feat_BD, weight_BK, target_BK, weight_ED, bias_E, head.prototypes
        )

    def backward(feat_BD: Tensor, weight_BK: Tensor, target_BK: Tensor) -> None:
        embeddings_BE, prototypes_KE = network.embed(feat_BD), network.prototype_matrix()
        with torch.no_grad():
            grad_BK = loss_gradient(embeddings_BE @ prototypes_KE.T, weight_BK, target_BK)
            grads = [grad_BK @ prototypes_KE, grad_BK.T @ embeddings_BE]
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward([embeddings_BE, prototypes_KE], grads)

    return backward


def _chunks(batches: list[Tensor], row_size: int) -> Iterator[Tensor]:
    """Batches stacked to (S, B), as many at a time as CHUNK allows."""
    rows = max(1, CHUNK // (len(batches[0]) * row_size)) if batches else 1
    for start in range(0, len(batches), rows):
        yield torch.stack(batches[start : start + rows])
