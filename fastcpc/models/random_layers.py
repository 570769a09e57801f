"""Whether a network may draw random numbers in a pass. Training steps seed the layers of such networks only.

Most networks draw nothing. Setting the seed of every device takes the host 0.1 to 0.4 ms per step.
"""

from torch import nn

# Layers of torch that draw nothing, whatever their settings are.
_TORCH = frozenset(
    {
        nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
        nn.GroupNorm, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Identity,
        nn.Flatten, nn.Sequential, nn.ModuleList, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    }
)  # fmt: skip
# Modules of Python whose layers and networks draw nothing. A test passes each of them in train mode.
_MODULES = ("torchvision.models.resnet", "fastcpc.models.")


def may_draw(network: nn.Module) -> bool:
    """Whether a pass in train mode may draw from torch's generators.

    True for every layer that is not known to draw nothing, such as all layers of timm, and for layers with hooks.
    """
    return not all(_draws_nothing(layer) for layer in network.modules())


def _draws_nothing(layer: nn.Module) -> bool:
    is_changed = bool(layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))
    is_known = type(layer) in _TORCH or type(layer).__module__.startswith(_MODULES)
    return is_known and not is_changed
