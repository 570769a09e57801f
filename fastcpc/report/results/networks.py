"""Load the networks of a checkpoint."""

import dataclasses
from pathlib import Path

from fastcpc.config.schema import Config
from fastcpc.data.rng import fold
from fastcpc.engine.checkpoint.format import load
from fastcpc.errors import RunError
from fastcpc.models.build import build_network
from fastcpc.models.network import Network


def load_networks(
    config: Config, checkpoint: Path, *, num_classes: int, in_channels: int, image_size: int
) -> list[Network]:
    """Both networks of a checkpoint, on the CPU; RunError where it is damaged or was trained on other classes."""
    weights, _ = load(checkpoint)
    model = dataclasses.replace(config.model, weights="")  # the checkpoint's weights replace any others
    networks = []
    for number, state in enumerate(weights, start=1):
        trained_on = len(state["classifier.weight"]) if "classifier.weight" in state else None
        if trained_on is not None and trained_on != num_classes:
            raise RunError(
                f"{checkpoint} was trained on {trained_on} classes, {config.data.name} has {num_classes}: "
                "the run's config.yaml or data set is not the one it was trained with"
            )
        network = build_network(
            model, config.cpc, num_classes=num_classes, in_channels=in_channels, image_size=image_size,
            seed=fold(config.run.seed, "network", number),
        )  # fmt: skip
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            problem = str(error).splitlines()[-1].strip()
            raise RunError(f"{checkpoint} does not fit the network of the run's config.yaml: {problem}") from error
        networks.append(network)
    return networks
