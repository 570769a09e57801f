"""Synchronised BatchNorm: statistics of the global batch, over all ranks.

On a GPU it is the layer of torch. torch has no layer for a CPU, so this module implements one. It also makes a run on N
ranks equal to a run on one rank.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastcpc.distributed import all_gather, all_reduce_sum, data_group, world_size
from fastcpc.errors import InputError
from fastcpc.models.ghost_batchnorm import copy_batchnorm

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of any number of dimensions on a CPU; all ranks must pass the same number of rows."""

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, C, ...) floating. Returns the same shape and type; plain BatchNorm in evaluation mode."""
        if not self.training:
            return F.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        count = values.numel() // values.shape[1] * world_size()
        normalised, mean_C, variance_C = _Normalise.apply(values, self.weight, self.bias, self.eps, count)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean_C, rate)
                self.running_var.lerp_(variance_C * (count / max(count - 1, 1)), rate)
        result: Tensor = normalised
        return result

    def _check_input_dim(self, values: Tensor) -> None:
        """Required by the base class of torch; every shape (B, C, ...) is allowed."""


class _Normalise(torch.autograd.Function):
    """Mean and variance over all ranks (Chan et al. 1979), with the gradient through both."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        axes = [0, *range(2, values.ndim)]
        own_var_C, own_mean_C = torch.var_mean(values.float(), dim=axes, correction=0)
        means_R2C = torch.stack(all_gather(torch.stack([own_mean_C, own_var_C]), "batchnorm")).double()
        mean_C = means_R2C[:, 0].mean(0)
        variance_C = (means_R2C[:, 1] + (means_R2C[:, 0] - mean_C).square()).mean(0)
        rstd_C = (variance_C + eps).rsqrt().float()
        mean_C, variance_C = mean_C.float(), variance_C.float()
        shape = [1, -1, *[1] * (values.ndim - 2)]
        unit = (values.float() - mean_C.view(shape)) * rstd_C.view(shape)
        ctx.save_for_backward(unit, weight_C, rstd_C)
        ctx.axes, ctx.shape, ctx.count = axes, shape, count
        result = (unit * weight_C.view(shape) + bias_C.view(shape)).to(values.dtype)
        ctx.mark_non_differentiable(mean_C, variance_C)
        return result, mean_C, variance_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        unit, weight_C, rstd_C = ctx.saved_tensors
        wide, shape = grad.float(), ctx.shape
        own_2C = torch.stack([wide.sum(ctx.axes), (wide * unit).sum(ctx.axes)])
        means_2C = all_reduce_sum(own_2C.clone(), "batchnorm") / ctx.count
        centred = wide - means_2C[0].view(shape) - unit * means_2C[1].view(shape)
        grad_values = (centred * (weight_C * rstd_C).view(shape)).to(grad.dtype)
        return grad_values, own_2C[1], own_2C[0], None, None


def synchronise_batchnorm(network: nn.Module, device: torch.device) -> None:
    """Replace all BatchNorm layers by synchronised layers with the same weights and statistics; in place.

    InputError on a CPU for layers that do more than BatchNorm (some layers of timm).
    """
    if device.type == "cuda":
        # converts the layers of timm and of torch; imported here, so that runs on a CPU do not need timm
        from timm.layers import norm_act

        for name, child in list(network.named_children()):
            setattr(network, name, norm_act.convert_sync_batchnorm(child, data_group()))
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _PLAIN:
                setattr(parent, name, _synced(child))
            elif isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SyncedBatchNorm):
                raise InputError(
                    f"parallel.sync_batchnorm: {type(child).__name__} of this model cannot be synchronised on a CPU; "
                    "set parallel.sync_batchnorm=false"
                )


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Running means and variances of the BatchNorm layers, in the order of the network."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    pairs = [(layer.running_mean, layer.running_var) for layer in layers]
    return [tensor for pair in pairs for tensor in pair if tensor is not None]


def _synced(layer: nn.Module) -> SyncedBatchNorm:
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    new = SyncedBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    if not layer.affine:
        raise InputError(
            "parallel.sync_batchnorm: BatchNorm without weights cannot be synchronised on a CPU; set it to false"
        )
    copy_batchnorm(layer, new)
    return new
