"""PreAct ResNet-18 for small images, the CIFAR network of DivideMix.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks". The layout is that of the code of DivideMix, so
that results are comparable. It differs from the paper in four details:
- Every shortcut starts after the first BatchNorm and ReLU of its block, so no path is an identity.
- BatchNorm and ReLU follow the first convolution, although the first block starts with both.
- There is no BatchNorm or ReLU between the last block and the pooling, so features can be negative.
- The initial weights are PyTorch's defaults.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fastcpc.models.registry import register_backbone

BLOCKS_PER_STAGE = 2
NUM_STAGES = 4


class PreActResNet18(nn.Module):
    """Images to pooled features.

    in_channels: 1 or more; width: channels of the first stage; each of the three further stages doubles them.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(NUM_STAGES):
            for position in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(PreActBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.feature_dim = channels

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) floating. Returns (B, 8 * width), the mean over the positions of the last block."""
        maps = F.relu(self.stem_norm(self.stem(images)))
        maps = self.blocks(maps)
        return F.adaptive_avg_pool2d(maps, 1).flatten(1)


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: (B, C, H, W) floating. Returns (B, C', H / stride, W / stride)."""
        active = F.relu(self.norm1(maps))
        change: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        shortcut: Tensor = self.shortcut(active)
        return change + shortcut


@register_backbone("preact_resnet18")
def preact_resnet18(in_channels: int, image_size: int, width: int) -> nn.Module:
    """The network with random weights; it takes images of any size."""
    del image_size
    return PreActResNet18(in_channels, width)
