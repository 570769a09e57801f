"""A forward pass without a gradient: features and logits of a batch, compiled where that is asked for."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcpc.engine.numerics import Numerics
from fastcpc.models.network import Network


def predict_batch(network: Network, images: Tensor, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """Features (B, D) in the type of activations and logits (B, K) in float32. The network is in evaluation mode.

    images: (B, C, H, W) floating. Compiled code sees batches of one size: a shorter one is filled up with zeros, which
    in evaluation mode changes nothing for the others, and what comes of them is cut off.
    """
    num_images, compiled = len(images), numerics.compile != "false"
    if compiled and num_images < numerics.score_batch:
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, numerics.score_batch - num_images))
    with torch.no_grad(), numerics.autocast():
        feat_BD, logits_BK = numerics.inference(features_and_logits)(network, images)
    if compiled:  # copies: the next run of a CUDA graph writes to where these lie
        feat_BD, logits_BK = feat_BD[:num_images].clone(), logits_BK[:num_images].clone()
    return feat_BD, logits_BK.float()


def features_and_logits(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """images: (B, C, H, W). Returns (B, D) and (B, K)."""
    feat_BD = network.features(images)
    return feat_BD, network.classify(feat_BD)
