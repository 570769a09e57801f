"""Out-of-fold linear heads: every sample gets class probabilities from heads that never saw it.

All heads train in one pass and share each batch, so that a step is one matrix product with the weights of all heads.
A mask keeps each head away from the samples of its fold.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.data.rng import fold as seed_of
from fastcpc.data.rng import generator

Rows = Callable[[Tensor], Tensor]  # indices (B,) int64 -> standardised embeddings (B, D) float32

CHUNK_NUMBERS = 2**23  # embeddings and logits that are in memory at a time


@dataclass(frozen=True)
class HeadSettings:
    """folds, repeats: heads = folds x repeats; head h of a repeat does not train on fold h.

    min_steps, max_steps: bounds of epochs x batches. mixup_alpha: of the Beta distribution; 0: no MixUp. l2: times half
    the squared weights, added to the mean cross entropy; the more samples, the less of it.
    """

    folds: int = 5
    repeats: int = 2
    epochs: int = 3
    min_steps: int = 300
    max_steps: int = 6000
    batch_size: int = 512
    lr: float = 2e-3
    l2: float = 0.0
    mixup_alpha: float = 0.0

    @property
    def num_heads(self) -> int:
        """Heads that are trained."""
        return self.folds * self.repeats


@dataclass(frozen=True)
class Heads:
    """weight_DHK: (D, H, K) and bias_HK: (H, K), float32. fold_NR: (N, R) uint8, the fold of a sample in a repeat."""

    weight_DHK: Tensor
    bias_HK: Tensor
    fold_NR: Tensor

    def out_of_fold(self, rows: Rows) -> Tensor:
        """Mean softmax of the heads that did not train on a sample, float32 (N, K)."""
        num, repeats = self.fold_NR.shape
        _, num_heads, num_classes = self.weight_DHK.shape
        folds = num_heads // repeats
        prob_NK = torch.zeros(num, num_classes)
        for head in range(num_heads):
            weight_DK, bias_K = self.weight_DHK[:, head].contiguous(), self.bias_HK[head]
            own_n = (self.fold_NR[:, head // folds] == head % folds).nonzero()[:, 0]
            for index in own_n.split(max(1, CHUNK_NUMBERS // (len(weight_DK) + num_classes))):
                prob_NK[index] += torch.addmm(bias_K, rows(index), weight_DK).softmax(1)
        return prob_NK.div_(repeats)

    def predict_proba(self, values_BD: Tensor) -> Tensor:
        """Mean softmax of all heads for new samples. values_BD: (B, D) float32, standardised. Returns (B, K)."""
        return self._softmax(values_BD).mean(1)

    def _softmax(self, values_BD: Tensor) -> Tensor:
        dim, num_heads, num_classes = self.weight_DHK.shape
        logits = values_BD @ self.weight_DHK.view(dim, -1) + self.bias_HK.view(-1)
        return logits.view(-1, num_heads, num_classes).softmax(2)


def draw_folds(labels_N: Tensor, settings: HeadSettings, seed: int) -> Tensor:
    """Folds of all samples, balanced per given label, (N, R) uint8; a fresh draw per repeat."""
    parts = []
    for repeat in range(settings.repeats):
        order_N = torch.randperm(len(labels_N), generator=generator(seed, "folds", repeat))
        order_N = order_N[labels_N[order_N].argsort(stable=True)]
        fold_N = torch.empty(len(labels_N), dtype=torch.uint8)
        fold_N[order_N] = (torch.arange(len(labels_N)) % settings.folds).to(torch.uint8)
        parts.append(fold_N)
    return torch.stack(parts, 1)


def train_heads(
    rows: Rows, target_NK: Tensor, fold_NR: Tensor, settings: HeadSettings, seed: int, start: Heads | None = None
) -> Heads:
    """Train all heads on soft targets by cross entropy with L2, Adam and a cosine schedule.

    rows: embeddings by index. target_NK: (N, K) float32, rows sum to 1. fold_NR: of ``draw_folds``. A mixed sample
    trains a head only if neither of its two samples belongs to the head's fold. start: heads of the same folds, which
    are trained further; they stay as they are. None: heads start at 0.
    """
    num, num_classes = target_NK.shape
    dim = rows(torch.zeros(1, dtype=torch.int64)).shape[1]
    if start is None:
        weight = torch.zeros(dim, settings.num_heads * num_classes)
        bias = torch.zeros(settings.num_heads * num_classes)
    else:
        weight, bias = start.weight_DHK.flatten(1).clone(), start.bias_HK.flatten().clone()
    optimizer = torch.optim.Adam([weight, bias], settings.lr, fused=True)
    batch_size = min(settings.batch_size, num)
    per_epoch = max(num // batch_size, 1)
    total = min(max(settings.epochs * per_epoch, settings.min_steps), settings.max_steps)
    step = 0
    head_fold = torch.arange(settings.folds, dtype=torch.uint8)
    for epoch in range(math.ceil(total / per_epoch)):
        order_N = torch.randperm(num, generator=generator(seed, "order", epoch))
        draws, shares = generator(seed, "mixup", epoch), np.random.default_rng(seed_of(seed, "shares", epoch))
        for index in order_N[: min(per_epoch, total - step) * batch_size].split(batch_size):
            share = shares.beta(settings.mixup_alpha, settings.mixup_alpha) if settings.mixup_alpha else 1.0
            partner = torch.randperm(len(index), generator=draws)
            values_BD, target_BK = rows(index), target_NK[index]
            seen_BRF = fold_NR[index][:, :, None] != head_fold
            if settings.mixup_alpha:
                values_BD = torch.lerp(values_BD[partner], values_BD, share)
                target_BK = torch.lerp(target_BK[partner], target_BK, share)
                seen_BRF = seen_BRF & seen_BRF[partner]
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / total))
            _set_gradients(weight, bias, values_BD, target_BK, seen_BRF.flatten(1).float(), settings.l2)
            optimizer.step()
            step += 1
    return Heads(weight.view(dim, settings.num_heads, num_classes), bias.view(settings.num_heads, num_classes), fold_NR)


def _set_gradients(
    weight: Tensor, bias: Tensor, values_BD: Tensor, target_BK: Tensor, seen_BH: Tensor, l2: float
) -> None:
    """Gradients of the mean cross entropy of each head over the samples that it sees, with L2, in closed form."""
    num_heads = seen_BH.shape[1]
    logits_BHK = torch.addmm(bias, values_BD, weight).view(len(values_BD), num_heads, -1)
    error_BHK = F.softmax(logits_BHK, 2).sub_(target_BK[:, None])
    error_BHK.mul_((seen_BH / seen_BH.sum(0).clamp_min(1))[:, :, None])
    error_BC = error_BHK.flatten(1)
    weight.grad = torch.addmm(weight, values_BD.T, error_BC, beta=l2)
    bias.grad = error_BC.sum(0)
