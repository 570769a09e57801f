"""Casts all weights of a network to the type of autocast in one operation of a compiled step.

Autocast casts each weight by itself: PreAct ResNet-18 has 22, and as many gradients are cast back. The values are the
same. Uncompiled steps leave the casts to autocast.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # which autocast computes in its type


def with_cast_weights(network: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """The network as a function of images, whose trained weights are cast by this call, once for all later calls.

    The network itself where nothing is compiled or cast. images: tells the device.
    """
    if not torch.compiler.is_compiling() or not torch.is_autocast_enabled(images.device.type):
        return network
    weights = {
        f"{name}.{kind}": weight
        for name, layer in network.named_modules()
        if type(layer) in _LAYERS
        for kind, weight in layer.named_parameters(recurse=False)
        if weight.requires_grad
    }
    cast = _CastAll.apply(torch.get_autocast_dtype(images.device.type), *weights.values())
    replaced = dict(zip(weights, cast, strict=True))
    return lambda batch: functional_call(network, replaced, (batch,))


class _CastAll(torch.autograd.Function):
    """The product with 1 is exact. It makes the compiler join the casts, which it does for these operations alone."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        return tuple(weight.to(dtype) for weight in torch._foreach_mul(weights, 1.0))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul([gradient.float() for gradient in gradients], 1.0)
