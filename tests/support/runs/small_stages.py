"""Training passes of a small run without a trainer; not a test itself."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from small_run import small_config

from fastcpc.cleaner.partition import Partition
from fastcpc.config.schema import Config
from fastcpc.data.loaders.base import Batch
from fastcpc.data.loaders.factory import make_loader
from fastcpc.engine.launch import load_data
from fastcpc.engine.learner import Learner
from fastcpc.engine.numerics import resolve_numerics
from fastcpc.engine.train_epoch import TrainContext

CONFIG = small_config(Path("unused"))


class BareSteps:
    """A StepLoop without progress, timing or stops. number: how batches are numbered and watched."""

    def __init__(self, number: Callable[[Iterator[Batch]], Iterator[tuple[int, Batch]]] = enumerate) -> None:
        self.number = number

    def train_steps(
        self, title: str, batches: Iterator[Batch], total: int, *, num_views: int
    ) -> Iterator[tuple[int, Batch]]:
        """(step, batch) from step 0 on."""
        return self.number(batches)


def small_stages(config: Config = CONFIG) -> tuple[TrainContext, list[Learner]]:
    """What the stages take, and both networks; every other sample is predicted clean."""
    dataset, labels = load_data(config)
    numerics = resolve_numerics(config)
    loader = make_loader(dataset.train, dataset, config.data, config.augment, numerics.device)
    learners = [
        Learner(number, config, numerics, num_classes=10, in_channels=1, image_size=8, num_samples=len(labels.given))
        for number in (1, 2)
    ]
    clean_N = torch.arange(len(labels.given), device=numerics.device) % 2 == 0
    for learner in learners:
        learner.partition = Partition(clean_N, clean_N.float())
    return TrainContext(config, numerics, loader, torch.from_numpy(labels.given).to(numerics.device), 10), learners
