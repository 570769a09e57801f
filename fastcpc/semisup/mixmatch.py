"""The MixMatch step and the warm-up step as functions of tensors, each compiled as one graph.

No function reads a value from the device or branches on one. What changes from step to step (lam, the permutation, the
weight of the unlabelled loss) comes in as tensors, so that nothing is compiled twice.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastcpc.config.schema import SemisupConfig
from fastcpc.models.cast_weights import with_cast_weights
from fastcpc.models.ghost_batchnorm import forward_ghost
from fastcpc.semisup.losses import labelled_loss, prior_penalty, unlabelled_loss, warmup_loss
from fastcpc.semisup.mixup import Partners, mixup
from fastcpc.semisup.targets import co_guess, co_refine

FIXED = "fixed"  # BatchNorm of an average of weights


class StepLosses(NamedTuple):
    """Losses of one step, 0-d float32 tensors; only ``total`` carries a gradient, the others are for the log."""

    total: Tensor
    labelled: Tensor
    unlabelled: Tensor
    penalty: Tensor


def warm_up_loss(network: nn.Module, images: Tensor, labels_B: Tensor, penalty: bool) -> Tensor:
    """Loss of a warm-up step: the network, in train mode, on images (B, C, H, W); the rest as ``warmup_loss``."""
    return warmup_loss(with_cast_weights(network, images)(images), labels_B, penalty)


def semisup_loss(
    own: nn.Module,
    other_logits: Tensor,
    guess_views: tuple[Tensor, ...],
    train_views: tuple[Tensor, ...],
    labels_B: Tensor,
    clean_prob_B: Tensor,
    lam: Tensor,
    partners: Partners,
    weight_u: Tensor,
    settings: SemisupConfig,
    num_classes: int,
    guesser: nn.Module | None = None,
) -> StepLosses:
    """Loss of the own network on B labelled and B unlabelled samples, from guessed targets to the penalty.

    V is the number of views per sample, settings.views: 2 in DivideMix, or 1.
    own: the network that is trained, in train mode; it maps images to logits. other_logits: (V B, K) floating, of the
    fixed network in eval mode, for the unlabelled samples in view 1, then in view 2.
    guess_views, train_views: V (2B, C, H, W) floating each, the B labelled samples first, then the B unlabelled.
    labels_B: (B,) int64, given labels; clean_prob_B: (B,) floating in [0, 1].
    lam: 0-d floating in [0.5, 1]. partners: MixUp partners of the 2V B rows of the train views, or of the V B
    labelled rows (labelled_half_only). Order of rows: labelled of view 1, labelled of view 2, unlabelled of view 1,
    of view 2.
    weight_u: 0-d floating, lambda_u times its ramp; settings, num_classes: constants of the run.
    guesser: the average of the own network's weights, in eval mode, which guesses in its place; None: the own network.
    Autocast is the caller's; softmaxes, logarithms and losses are float32 in any case.
    Returns StepLosses; ``unlabelled`` is unweighted, and 0 where the unlabelled half is not passed through the network.
    Source: DivideMix, algorithm 1, with AugDMix's separate views to guess from and to train on.
    """
    num_labelled = labels_B.shape[0]
    num_views = len(train_views)
    inputs = torch.cat(
        [view[:num_labelled] for view in train_views] + [view[num_labelled:] for view in train_views], dim=0
    )
    partner_inputs = partners.fetch(inputs)  # with several ranks they travel while targets are guessed
    batchnorm = settings.guess_batchnorm if guesser is None else FIXED
    forward = with_cast_weights(own, inputs)
    target_x_BK, target_u_BK = guess_targets(
        guesser or own,
        other_logits,
        guess_views,
        labels_B,
        clean_prob_B,
        settings.temperature,
        num_classes,
        batchnorm,
        forward if guesser is None else guesser,
    )
    targets = torch.cat([target_x_BK] * num_views + [target_u_BK] * num_views, dim=0)
    num_x = num_views * num_labelled
    mixed_inputs = mixup(inputs, partner_inputs(), lam)
    mixed_targets = mixup(targets, partners.fetch(targets)(), lam)

    logits = forward(mixed_inputs)
    labelled = labelled_loss(logits[:num_x], mixed_targets[:num_x])
    penalty = prior_penalty(logits)
    if settings.labelled_half_only:
        unlabelled = torch.zeros_like(labelled)
        total = labelled + penalty
    else:
        unlabelled = unlabelled_loss(logits[num_x:], mixed_targets[num_x:])
        total = labelled + weight_u * unlabelled + penalty
    return StepLosses(total, labelled.detach(), unlabelled.detach(), penalty.detach())


def guess_targets(
    own: nn.Module,
    other_logits: Tensor,
    guess_views: tuple[Tensor, ...],
    labels_B: Tensor,
    clean_prob_B: Tensor,
    temperature: float,
    num_classes: int,
    batchnorm: str = "per_view",
    forward: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Targets of the labelled and of the unlabelled samples, without a gradient; arguments as in ``semisup_loss``.

    batchnorm: semisup.guess_batchnorm, or FIXED for an own network that is not trained. forward: the own network as a
    function of images; None: the network itself. Returns two (B, K) float32.
    """
    num_labelled, num_views = labels_B.shape[0], len(guess_views)
    with torch.no_grad():
        guesses = _own_guesses(
            own,
            own if forward is None else forward,
            [view[num_labelled:] for view in guess_views] + [view[:num_labelled] for view in guess_views],
            batchnorm,
        )
        target_u_BK = co_guess([*guesses[:num_views], *other_logits.chunk(num_views)], temperature)
        target_x_BK = co_refine(labels_B, clean_prob_B, guesses[num_views:], temperature, num_classes)
    return target_x_BK, target_u_BK


def _own_guesses(
    own: nn.Module, forward: Callable[[Tensor], Tensor], parts: list[Tensor], batchnorm: str
) -> list[Tensor]:
    """Logits of the own network for each view and half.

    per_view: in train mode, where each part is normalised by its own statistics and moves the running ones, as the
    peers have it. merged: by those of all parts together. running: by the running ones, which stay as they are. FIXED:
    the network is in eval mode and stays so.
    """
    if batchnorm == "per_view":
        return forward_ghost(own, parts, forward)
    if batchnorm == "running":
        own.eval()
    logits = forward(torch.cat(parts, dim=0))
    if batchnorm != FIXED:
        own.train()
    return list(logits.chunk(len(parts)))
