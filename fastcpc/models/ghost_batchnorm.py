"""Ghost BatchNorm: several batches in one forward pass, each normalised by its own statistics.

One pass of 4 B images needs a quarter of the kernel launches of four passes of B images. A compiler gets one copy of
the network. Only BatchNorm couples the images of a batch. Here each batch has its own statistics, and the running
statistics are updated once per batch, in order. The result equals that of separate passes, except for rounding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class GhostBatches:
    """The number of batches that the input of a network consists of.

    counted: the layers whose ``num_batches_tracked`` the first of them in training increases for all, in one operation.
    A layer without momentum needs its own count and is not among them.
    """

    def __init__(self) -> None:
        self.count = 1
        self.counted: list[GhostBatchNorm] = []

    def add_batches(self, layer: "GhostBatchNorm") -> None:
        """Count the batches for all layers in training, if this layer is the first of them."""
        training = [other for other in self.counted if other.training]
        if training and training[0] is layer:
            tracked = [other.num_batches_tracked for other in training if other.num_batches_tracked is not None]
            torch._foreach_add_(tracked, self.count)


class GhostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of any number of dimensions, per batch; with one batch it is the layer of torch."""

    groups: GhostBatches

    def forward(self, values: Tensor) -> Tensor:
        """values: (G * B, C, ...) floating. Returns the same shape and type."""
        if not self.training or (self.groups.count == 1 and self not in self.groups.counted):
            normalised: Tensor = super().forward(values)
            return normalised
        self.groups.add_batches(self)
        if self.groups.count == 1:
            return F.batch_norm(
                values,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                True,
                self.momentum or 0.0,
                self.eps,
            )
        return self._by_group(values, self.groups.count)

    def _by_group(self, values: Tensor, num_groups: int) -> Tensor:
        split = values.reshape(num_groups, -1, *values.shape[1:])
        axes = [1, *range(3, split.ndim)]
        shape = [num_groups, 1, -1, *[1] * (values.ndim - 2)]
        wide = split.float()
        variance_GC, mean_GC = torch.var_mean(wide, dim=axes, correction=0)
        scale_GC = (variance_GC + self.eps).rsqrt() * self.weight
        result = (wide - mean_GC.view(shape)) * scale_GC.view(shape)
        result = result + self.bias.view(1, 1, -1, *[1] * (values.ndim - 2))
        self._move(mean_GC, variance_GC, values.numel() // (num_groups * values.shape[1]))
        return result.to(values.dtype).reshape(values.shape)

    @torch.no_grad()
    def _move(self, mean_GC: Tensor, variance_GC: Tensor, count: int) -> None:
        """Update the running statistics once per batch, in order. count: values per batch and channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        unbiased_GC = variance_GC * (count / max(count - 1, 1))
        for mean_C, variance_C in zip(mean_GC.unbind(), unbiased_GC.unbind(), strict=True):
            if self.momentum is None:
                self.num_batches_tracked.add_(1)
            rate = self.momentum if self.momentum is not None else 1.0 / self.num_batches_tracked
            self.running_mean.copy_((1.0 - rate) * self.running_mean + rate * mean_C)
            self.running_var.copy_((1.0 - rate) * self.running_var + rate * variance_C)

    def _check_input_dim(self, values: Tensor) -> None:
        """Required by the base class of torch; every shape (B, C, ...) is allowed."""


def apply_ghost_batchnorm(network: nn.Module) -> bool:
    """Replace all BatchNorm layers by ``GhostBatchNorm`` with the same weights and statistics; in place.

    Returns False, and changes nothing, where a layer does more than BatchNorm (some layers of timm).
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    if any(type(layer) not in _PLAIN or not layer.affine for layer in norms):
        return False
    groups = GhostBatches()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _grouped(child, groups))
    network.norm_groups = groups  # type: ignore[assignment]
    return True


def forward_ghost(
    network: nn.Module, batches: list[Tensor], forward: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """The outputs of the network for batches of one shape, each with its own BatchNorm statistics, in order.

    One pass where ``apply_ghost_batchnorm`` returned True, else one pass per batch. Call it without gradients.
    forward: the network as a function of images; None: the network itself.
    """
    forward = network if forward is None else forward
    groups = getattr(network, "norm_groups", None)
    if not isinstance(groups, GhostBatches):
        return [forward(images) for images in batches]
    groups.count = len(batches)
    outputs = forward(torch.cat(batches, dim=0))
    groups.count = 1
    return list(outputs.chunk(len(batches)))


def _grouped(layer: nn.modules.batchnorm._BatchNorm, groups: GhostBatches) -> GhostBatchNorm:
    new = GhostBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    new.groups = groups
    copy_batchnorm(layer, new)
    if new.momentum is not None and new.num_batches_tracked is not None:
        groups.counted.append(new)
    return new


def copy_batchnorm(layer: nn.modules.batchnorm._BatchNorm, new: nn.modules.batchnorm._BatchNorm) -> None:
    """Give a layer the weights, statistics and mode of another one, and freeze what is frozen there."""
    new.load_state_dict(layer.state_dict())
    for own, given in zip(new.parameters(), layer.parameters(), strict=True):
        own.requires_grad_(given.requires_grad)
    new.train(layer.training)
