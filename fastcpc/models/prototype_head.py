"""Prototype head of CPC: projector, prototypes, and optionally a learned scale and bias.

Source: CPC, section 4.1: v' = projector(v), and q(z=0) = sigmoid(v' . c_y) with one prototype per class.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INITIAL_SCALE = 10.0


class PrototypeHead(nn.Module):
    """Projector and prototypes; the argument of the sigmoid is a plain dot product of their outputs.

    feature_dim: D; embedding_dim: d, below D; num_classes: K; projector: linear, or mlp with one hidden layer of D
    units. normalise: use the cosine times a learned scale plus a learned bias instead of the dot product.
    """

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        num_classes: int,
        projector: Literal["linear", "mlp"],
        normalise: bool,
    ) -> None:
        super().__init__()
        self.projector: nn.Module
        if projector == "linear":
            self.projector = nn.Linear(feature_dim, embedding_dim)
        else:
            self.projector = nn.Sequential(
                nn.Linear(feature_dim, feature_dim), nn.ReLU(), nn.Linear(feature_dim, embedding_dim)
            )
        # Prototypes of length about 1: the first scores are near 1/2 for every d.
        self.prototypes = nn.Parameter(torch.randn(num_classes, embedding_dim) / math.sqrt(embedding_dim))
        self.log_scale: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if normalise:
            # The parameter is the logarithm of the scale, so that the scale stays positive.
            self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))
            self.bias = nn.Parameter(torch.zeros(()))

    def embed(self, feat_BD: Tensor) -> Tensor:
        """Embeddings whose dot product with a row of ``matrix`` is the argument of the sigmoid.

        feat_BD: (B, D) floating. Returns (B, d), or (B, d + 1) with normalise: scaled unit vectors and the bias.
        """
        projected_Bd: Tensor = self.projector(feat_BD)
        if self.log_scale is None or self.bias is None:
            return projected_Bd
        scaled_Bd = F.normalize(projected_Bd, dim=1) * self.log_scale.exp()
        return torch.cat([scaled_Bd, self.bias.to(scaled_Bd.dtype).expand(scaled_Bd.shape[0], 1)], dim=1)

    def matrix(self) -> Tensor:
        """The prototypes, (K, d), or (K, d + 1) with normalise: unit vectors and a column of ones for the bias."""
        if self.bias is None:
            return self.prototypes
        unit_Kd = F.normalize(self.prototypes, dim=1)
        return torch.cat([unit_Kd, unit_Kd.new_ones(unit_Kd.shape[0], 1)], dim=1)
