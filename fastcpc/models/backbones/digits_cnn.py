"""A small network for 8x8 images, fast on one CPU core.

Most of the time goes into pooling, BatchNorm and ReLU on the first, largest maps. So the first convolution has few
channels, pooling comes before BatchNorm, and most parameters are in the linear layer at the end. That layer has no
BatchNorm: with one, the losses after five epochs of warm-up separate clean from noisy digits less well. The AUC, mean
of 6 seeds, is then 0.888 instead of 0.939 at sym 80, and 0.796 instead of 0.834 at asym 40.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fastcpc.models.registry import register_backbone


@register_backbone("digits_cnn")
class DigitsCnn(nn.Module):
    """Images to features: two 3x3 convolutions with BatchNorm, pooling after the first, and a linear layer.

    in_channels: 1 or more; image_size: 2 pixels or more; width: channels of the second convolution, an even number. The
    first convolution has width / 2 channels; there are 8 * width features.
    """

    def __init__(self, in_channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.feature_dim = 8 * width
        num_positions = (image_size // 2) ** 2
        self.conv1 = nn.Conv2d(in_channels, width // 2, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.linear = nn.Linear(num_positions * width, self.feature_dim)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) floating, H = W = image_size. Returns (B, 8 * width), 0 or more."""
        maps = F.relu(self.norm1(F.max_pool2d(self.conv1(images), 2)))
        maps = F.relu(self.norm2(self.conv2(maps)))
        return F.relu(self.linear(maps.flatten(1)))
