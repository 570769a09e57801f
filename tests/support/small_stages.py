"""The training stages of a small run by themselves, without a trainer around them; not a test itself."""

from pathlib import Path

import torch
from small_run import small_config

from fastcpc.cleaner.partition import Partition
from fastcpc.config.schema import Config
from fastcpc.data.feeds import make_feed
from fastcpc.engine.member import Member
from fastcpc.engine.precision import resolve_numerics
from fastcpc.engine.stages import Training
from fastcpc.engine.start import load_data

CONFIG = small_config(Path("unused"))


def small_stages(config: Config = CONFIG) -> tuple[Training, list[Member]]:
    """What the stages take, and both networks, each with every other sample held clean."""
    dataset, labels = load_data(config)
    numerics = resolve_numerics(config)
    feed = make_feed(dataset.train, dataset, config.data, config.augment, numerics.device)
    members = [
        Member(number, config, numerics, num_classes=10, in_channels=1, image_size=8, num_samples=len(labels.given))
        for number in (1, 2)
    ]
    clean_N = torch.arange(len(labels.given), device=numerics.device) % 2 == 0
    for member in members:
        member.partition = Partition(clean_N, clean_N.float())
    return Training(config, numerics, feed, torch.from_numpy(labels.given).to(numerics.device), 10), members
