"""ResNet-50 of torchvision, with random weights, with weights from a file, or with torchvision's weights by name.

torchvision is imported by the functions that use it. Only weights by name need a network connection.
"""

from torch import nn

from fastcpc.errors import InputError
from fastcpc.models.pretrained.weights import copy_weights, first_line
from fastcpc.models.registry import register_backbone

CLASSIFIER = ("fc",)


def load_named(backbone: nn.Module, weights: str) -> None:
    """Fetch weights by their name in torchvision (IMAGENET1K_V1) and copy them into the backbone. Raises InputError."""
    from torchvision.models import ResNet50_Weights

    if weights not in ResNet50_Weights.__members__:
        raise InputError(
            f"model.weights={weights}: neither a path nor a name of torchvision's weights "
            f"({', '.join(ResNet50_Weights.__members__)})"
        )
    known = ResNet50_Weights[weights]
    try:
        tensors = known.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"model.weights={weights}: cannot be fetched from {known.url}: {first_line(error)}; "
            "a path to a downloaded file works without a network"
        ) from error
    copy_weights(backbone, tensors, CLASSIFIER, f"model.weights={weights}")


@register_backbone("resnet50", load_named=load_named, classifier=CLASSIFIER)
def resnet50(in_channels: int, image_size: int, width: int) -> nn.Module:
    """ResNet-50 without its classifier: images (B, in_channels, H, W) of any size to features (B, 2048).

    in_channels: 1 or more; weights by name fit 3 only. image_size and width are not used.
    Source: He et al. 2016; DivideMix trains it on Clothing1M, from IMAGENET1K_V1.
    """
    from torchvision import models

    del image_size, width
    backbone: nn.Module = models.resnet50(weights=None)
    backbone.fc = nn.Identity()
    if in_channels != 3:
        backbone.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return backbone
