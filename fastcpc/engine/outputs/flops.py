"""FLOPs of a network per image, counted once per run by torch's FlopCounterMode.

Convolutions, matrix products and attention count; a multiplication with an addition is 2 FLOPs. Element-wise operations
and BatchNorm do not count. So the numbers depend on the network and the image size, and not on the machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class ImageFlops:
    """FLOPs of a network per image. forward: of a forward pass. training: of a forward and a backward pass."""

    forward: int
    training: int


def count_image_flops(network: nn.Module, in_channels: int, image_size: int) -> ImageFlops | None:
    """Count the FLOPs of a network on images (in_channels, image_size, image_size), without computing anything.

    The network stays as it is: it runs on the meta device with its parameters' shapes, in evaluation mode, where
    BatchNorm sends no messages. None where a layer cannot.
    """
    tensors = {
        name: torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }
    image = torch.empty(1, in_channels, image_size, image_size, device="meta")
    own_formula = {torch.ops.aten.convolution_backward: _convolution_backward}
    was_training = network.training
    network.eval()
    try:
        with FlopCounterMode(display=False, custom_mapping=own_formula) as counter:
            logits: Tensor = functional_call(network, tensors, (image,))
            forward = int(counter.get_total_flops())
            logits.sum().backward()
        return ImageFlops(forward, int(counter.get_total_flops()))
    except (NotImplementedError, RuntimeError):
        return None
    finally:
        network.train(was_training)


def _convolution_backward(
    gradient_shape: Sequence[int],
    in_shape: Sequence[int],
    weight_shape: Sequence[int],
    *settings: Any,
    **_: Any,
) -> int:
    """FLOPs of the gradients of a convolution: each needs as many as the forward pass. torch's own formula is wrong for
    grouped convolutions, which it counts as dense ones."""
    transposed, wanted = bool(settings[4]), settings[7]  # of bias, stride, padding, dilation, ...
    places = in_shape if transposed else gradient_shape
    forward = 2 * places[0] * math.prod(places[2:]) * math.prod(weight_shape)
    return forward * (int(wanted[0]) + int(wanted[1]))
