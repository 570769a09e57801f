"""A copy of a fixed network whose BatchNorm layers are folded into the convolutions before them.

``TrainContext`` holds one for the network that guesses labels. In evaluation mode BatchNorm scales and shifts each
channel by constants. A convolution with scaled filters and a bias does the same without a pass over its output.
Results differ by rounding.
"""

import copy
from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from fastcpc.models.ghost_batchnorm import GhostBatchNorm
from fastcpc.models.sync_batchnorm import SyncedBatchNorm

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, GhostBatchNorm, SyncedBatchNorm)


class FoldedNetwork(nn.Module):
    """Maps images to logits as the network does in evaluation mode; it never trains.

    ``load`` takes the weights of a network of the same architecture. The addresses of its own tensors never change.
    """

    def __init__(self, graph: fx.GraphModule, pairs: dict[str, str]) -> None:
        """graph: of the network, without the folded layers. pairs: names of convolutions and of the layer folded in."""
        super().__init__()
        self.graph = graph
        self.pairs = pairs

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) floating. Returns logits, (B, K)."""
        logits_BK: Tensor = self.graph(images)
        return logits_BK

    def train(self, mode: bool = True) -> "FoldedNetwork":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def load(self, network: nn.Module) -> None:
        """Copy the weights and statistics of a network, folded; never waits for the device."""
        given = network.state_dict()
        values = {name: given[name] for name in self.graph.state_dict() if name in given}
        for conv, norm in self.pairs.items():
            layer = cast(nn.modules.batchnorm._BatchNorm, network.get_submodule(norm))
            weight, bias = folded_weights(given[f"{conv}.weight"], given.get(f"{conv}.bias"), layer)
            values |= {f"{conv}.weight": weight, f"{conv}.bias": bias}
        own = self.graph.state_dict()
        torch._foreach_copy_([own[name] for name in values], list(values.values()))


def folded_weights(weight: Tensor, bias: Tensor | None, norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """Filters (C, ...) and bias (C,) of a convolution that does the work of both layers in evaluation mode."""
    mean_C, variance_C = norm.running_mean, norm.running_var
    assert mean_C is not None and variance_C is not None
    scale_C = (variance_C + norm.eps).rsqrt()
    if norm.affine:
        scale_C = scale_C * norm.weight
    shift_C = (-mean_C if bias is None else bias - mean_C) * scale_C
    if norm.affine:
        shift_C = shift_C + norm.bias
    return weight * scale_C.view(-1, *[1] * (weight.ndim - 1)), shift_C


def fold_batchnorm(network: nn.Module, dtype: torch.dtype | None = None) -> FoldedNetwork | None:
    """The folded copy of a network, on its device. None where no layer can be folded or torch.fx cannot trace it.

    dtype: of its convolutions, that of autocast, which then has no filters to cast; None: as they are.
    """
    fixed = copy.deepcopy(network).requires_grad_(False).eval()
    try:
        graph = _Tracer().trace(fixed)
    except Exception:  # a network of a user or of timm may raise anything where its code looks at values
        return None
    pairs = _pairs(fixed, graph)
    if not pairs:
        return None
    for conv_node, norm_node in pairs:
        norm_node.replace_all_uses_with(conv_node)
        graph.erase_node(norm_node)
        conv = fixed.get_submodule(str(conv_node.target))
        if conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(len(conv.weight)), requires_grad=False)
    for layer in fixed.modules():
        if type(layer) in _CONVOLUTIONS and dtype is not None:
            layer.to(dtype)
    names = {str(conv_node.target): str(norm_node.target) for conv_node, norm_node in pairs}
    folded = FoldedNetwork(fx.GraphModule(fixed, graph), names)
    folded.eval().load(network)
    return folded


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Layers of torch, and every BatchNorm."""
        return isinstance(m, nn.modules.batchnorm._BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _pairs(network: nn.Module, graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Convolutions whose output only a BatchNorm reads, with that layer; each layer is called once."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found = []
    for norm_node in graph.nodes:
        if norm_node.op != "call_module" or len(norm_node.args) != 1:
            continue
        conv_node: Any = norm_node.args[0]
        if conv_node.op != "call_module" or len(conv_node.users) > 1:
            continue
        if calls[norm_node.target] > 1 or calls[conv_node.target] > 1:
            continue
        conv, norm = (network.get_submodule(str(node.target)) for node in (conv_node, norm_node))
        if type(conv) in _CONVOLUTIONS and type(norm) in _NORMS and norm.running_mean is not None:
            found.append((conv_node, norm_node))
    return found
