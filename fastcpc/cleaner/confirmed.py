"""Labels that a reviewer confirmed (``data.corrections``): their clean probability is 1, and no cleaner decides.

Mixtures and the confusion matrix are estimated from the other samples. Prototypes learn confirmed labels as clean.
"""

import dataclasses

from torch import Tensor

from fastcpc.cleaner.base import CleanerInput, CleanerResult
from fastcpc.cleaner.partition import Partition
from fastcpc.kernels import MixtureFit


def with_confirmed(result: CleanerResult, data: CleanerInput) -> CleanerResult:
    """The result with clean probability 1 where a label is confirmed; other samples keep theirs."""
    if data.confirmed_N is None:
        return result
    return dataclasses.replace(result, clean_prob_N=result.clean_prob_N.masked_fill(data.confirmed_N, 1.0))


def always_labelled(partition: Partition, confirmed_N: Tensor) -> Partition:
    """The partition with all confirmed samples in X with weight 1, also those that were not scored."""
    return Partition(partition.clean_N | confirmed_N, partition.clean_prob_N.masked_fill(confirmed_N, 1.0))


def without_last(fit: MixtureFit) -> MixtureFit:
    """The fit of all groups but the last, which has the confirmed samples."""
    return MixtureFit(*(getattr(fit, field.name)[:-1] for field in dataclasses.fields(fit)))
