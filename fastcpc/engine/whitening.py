"""First layers that depend on the training images: the whitening layer of ``airbench``.

``Trainer`` calls it before the first epoch. A checkpoint has the layer, so a run that resumes overwrites it.
"""

from collections.abc import Sequence

import torch

from fastcpc.data.loaders.base import Loader
from fastcpc.distributed.collectives import all_reduce_mean
from fastcpc.models.backbones.airbench import Airbench
from fastcpc.models.network import Network

NUM_IMAGES = 5000  # as airbench
BATCH = 500


def fit_whitening(networks: Sequence[Network], loader: Loader) -> None:
    """Fit the whitening layers of ``airbench`` to images from all over the training set. Others do not change."""
    backbones = [network.backbone for network in networks if isinstance(network.backbone, Airbench)]
    if not backbones:
        return
    index = torch.linspace(0, loader.num_samples - 1, min(NUM_IMAGES, loader.num_samples)).long()
    batches = list(index.split(BATCH))
    images = torch.cat([batch.views[0].cpu() for batch in loader.stream(batches, ("test",), seed=0)])
    backbones[0].fit_whitening(images)
    with torch.no_grad():
        # machines may round differently; all ranks need the same filters
        filters = all_reduce_mean(backbones[0].whiten.weight.clone(), "whitening")
        for backbone in backbones:
            backbone.whiten.weight.copy_(filters)
