"""Networks for embeddings: ``linear``, whose features are the embedding itself, and ``mlp`` with one hidden layer.

The classifier of ``Network`` comes behind both. An embedding is an image of one pixel with D channels here.
"""

from torch import nn

from fastcpc.models.registry import register_backbone

HIDDEN = 8  # hidden units per model.width


@register_backbone("linear")
def linear_backbone(in_channels: int, image_size: int, width: int) -> nn.Module:
    """Embeddings (B, D, 1, 1) to features (B, D), without parameters; width is not used."""
    return nn.Flatten()


@register_backbone("mlp")
def mlp_backbone(in_channels: int, image_size: int, width: int) -> nn.Module:
    """Embeddings (B, D, 1, 1) to features (B, 8 * width), 0 or more."""
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, HIDDEN * width), nn.ReLU())
