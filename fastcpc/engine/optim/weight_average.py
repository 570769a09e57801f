"""The exponential moving average of a network's weights (``ema.decay``): the network that scores, guesses and counts.

``Learner`` updates it after each step of the optimiser. Source: Tarvainen and Valpola, Mean Teacher, 2017.
"""

import copy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fastcpc.engine.numerics import Numerics
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm
from fastcpc.models.network import Network


class WeightAverage:
    """An average of the weights of a network, w <- decay w + (1 - decay) w_network, from its initial weights on.

    BatchNorm means and variances are averaged in the same way, as timm does it; counts and tables of integers are
    copied. Both networks share the prototype head, which cleaning trains on the features of the average.

    The formula is that of ``torch.optim.swa_utils.AveragedModel``, whose count of updates would be read from the device
    in each step.
    """

    def __init__(self, network: Network, decay: float) -> None:
        """network: as built, before its layers are replaced for the device or for several ranks."""
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.network.head = network.head
        self._formula = get_ema_multi_avg_fn(decay)
        self._pairs: dict[bool, tuple[list[Tensor], list[Tensor]]] = {}

    def prepare(self, network: Network, numerics: Numerics) -> None:
        """Move the average to the device. network: the one to follow, ready for training."""
        if numerics.compiles_steps:
            apply_ghost_batchnorm(self.network)
        numerics.prepare(self.network)
        own, followed = self.network.state_dict(), network.state_dict()
        names = [name for name in own if not name.startswith("head.")]
        for is_float in (True, False):
            chosen = [name for name in names if own[name].is_floating_point() == is_float]
            self._pairs[is_float] = [own[name] for name in chosen], [followed[name] for name in chosen]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights; never waits for the device."""
        self._formula(*self._pairs[True], 0)  # the count of updates is not used
        if self._pairs[False][0]:  # counts of BatchNorm: a network may have none
            torch._foreach_copy_(*self._pairs[False])
