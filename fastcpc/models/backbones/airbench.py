"""The network of airbench for images of 32 pixels: a fifth of the FLOPs of PreAct ResNet-18.

Source: Jordan 2024, arXiv 2404.00498.

A frozen first layer whitens patches of 2x2 pixels: its filters are the principal directions of patches of the training
images, scaled to variance 1, and their negatives. Three blocks of two 3x3 convolutions follow. BatchNorm has no scale,
activations are GELU, and the first filters of each convolution start as the identity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcpc.models.registry import register_backbone

PATCH = 2  # pixels per side of a whitened patch
EPSILON = 5e-4  # added to the variances of patches, for pixels normalised to variance 1
MOMENTUM = 0.4  # of the running statistics: few steps per epoch need a short memory


class Block(nn.Module):
    """Two convolutions, each with BatchNorm and GELU; pooling by 2 follows the first one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels)
        self.norm1 = _norm(out_channels)
        self.conv2 = _convolution(out_channels, out_channels)
        self.norm2 = _norm(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: (B, in_channels, H, W). Returns (B, out_channels, H // 2, W // 2)."""
        maps = F.gelu(self.norm1(F.max_pool2d(self.conv1(maps), 2)))
        return F.gelu(self.norm2(self.conv2(maps)))


@register_backbone("airbench")
class Airbench(nn.Module):
    """Images to features: whitening, then blocks of width, 4 * width and 4 * width channels, and their maximum.

    in_channels: 1 or more; image_size: 9 to 64 pixels; width: 64 in the paper. There are 4 * width features.
    """

    def __init__(self, in_channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.feature_dim = 4 * width
        directions = in_channels * PATCH**2
        self.whiten = nn.Conv2d(in_channels, 2 * directions, kernel_size=PATCH)
        self.whiten.weight.requires_grad_(False)
        self.block1 = Block(2 * directions, width)
        self.block2 = Block(width, 4 * width)
        self.block3 = Block(4 * width, 4 * width)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) floating, H = W = image_size. Returns (B, 4 * width)."""
        maps: Tensor = F.gelu(self.whiten(images))
        maps = self.block3(self.block2(self.block1(maps)))
        return maps.amax(dim=(2, 3))

    @torch.no_grad()
    def fit_whitening(self, images: Tensor) -> None:
        """Set the filters of the first layer from normalised training images, (N, C, H, W).

        Each filter's response then has variance 1 over all patches, and the responses are uncorrelated.
        """
        patches_PD = F.unfold(images.double(), PATCH).transpose(1, 2).flatten(0, 1)
        second_DD = patches_PD.T @ patches_PD / len(patches_PD)
        variances_D, directions_DD = torch.linalg.eigh(second_DD)
        filters_DD = directions_DD.T / (variances_D[:, None] + EPSILON).sqrt()
        # The sign of a direction is arbitrary; without this line it would depend on the library.
        filters_DD *= filters_DD.gather(1, filters_DD.abs().argmax(1, keepdim=True)).sign()
        weight = filters_DD.view(-1, images.shape[1], PATCH, PATCH).flip(0)
        self.whiten.weight.copy_(torch.cat((weight, -weight)))


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution whose first filters pass one channel each on."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    shared = min(in_channels, out_channels)
    nn.init.dirac_(layer.weight.data[:shared])
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, momentum=MOMENTUM)
    layer.weight.requires_grad_(False)
    return layer
