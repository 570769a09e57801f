"""The architectures of this package, by name."""

from torch import nn

from fastcpc.models.digits_cnn import DigitsCnn
from fastcpc.models.preact_resnet import PreActResNet18
from fastcpc.models.small_cnn import SmallCnn


def own_backbone(name: str, in_channels: int, image_size: int, width: int) -> nn.Module:
    """A backbone with random weights: images (B, in_channels, image_size, image_size) to features (B, D).

    name: preact_resnet18, digits_cnn or small_cnn. ValueError for any other.
    """
    if name == "preact_resnet18":
        return PreActResNet18(in_channels, width)
    if name == "digits_cnn":
        return DigitsCnn(in_channels, image_size, width)
    if name == "small_cnn":
        return SmallCnn(in_channels, image_size, width)
    raise ValueError(f"{name} is no architecture of this package")
