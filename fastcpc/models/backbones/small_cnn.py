"""A small network for images of 8 to 64 pixels, fast on one CPU core, where a ResNet takes hours.

Pooling follows each of the three convolutions, so that the later, wider ones work on small maps. It comes before
BatchNorm, which is then a quarter of the work. As in ``digits_cnn``, most parameters are in a linear layer without
BatchNorm at the end.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fastcpc.models.registry import register_backbone


@register_backbone("small_cnn")
class SmallCnn(nn.Module):
    """Images to features: three 3x3 convolutions of width / 2, width and 2 * width channels, and a linear layer.

    in_channels: 1 or more; image_size: 8 to 64 pixels; width: an even number. There are 4 * width features.
    """

    def __init__(self, in_channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.feature_dim = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width // 2, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(2 * width)
        self.linear = nn.Linear((image_size // 8) ** 2 * 2 * width, self.feature_dim)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) floating, H = W = image_size. Returns (B, 4 * width), 0 or more."""
        maps = F.relu(self.norm1(F.max_pool2d(self.conv1(images), 2)))
        maps = F.relu(self.norm2(F.max_pool2d(self.conv2(maps), 2)))
        maps = F.relu(self.norm3(F.max_pool2d(self.conv3(maps), 2)))
        return F.relu(self.linear(maps.flatten(1)))
