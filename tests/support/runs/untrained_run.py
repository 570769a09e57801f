"""The folder of a run whose networks have random weights, made at once: enough to export and to predict."""

from pathlib import Path

import numpy as np
import torch

from fastcpc.config.load import load_config, to_yaml
from fastcpc.data.labels.noise import Labels
from fastcpc.data.registry import inference_transform
from fastcpc.engine.checkpoint.store import CheckpointStore
from fastcpc.engine.outputs.labels_file import write_labels
from fastcpc.models.build import build_network


def untrained_run(path: Path, class_names: tuple[str, ...], *settings: str) -> Path:
    """A run of one finished epoch with these classes."""
    config = load_config([], [*settings, f"run.dir={path}", "device=cpu", "train.epochs=20"])
    inputs = inference_transform(config.data)
    path.mkdir()
    (path / "config.yaml").write_text(to_yaml(config))
    (path / "metrics.jsonl").write_text('{"epoch": 0, "test_top1": 87.5, "net1_top1": 85.0, "net2_top1": null}\n')
    given = np.arange(2 * len(class_names)) % len(class_names)
    write_labels(path / "labels.npz", Labels(given, None, "none", 0.0, None, 1), np.arange(len(given)), class_names)
    states = []
    for seed in (5, 6):
        network = build_network(
            config.model, config.cpc, num_classes=len(class_names), in_channels=inputs.channels,
            image_size=inputs.crop, seed=seed,
        )  # fmt: skip
        draws = torch.Generator().manual_seed(seed)
        for name, tensor in network.state_dict().items():  # statistics that are neither 0 nor 1
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(torch.rand(tensor.shape, generator=draws) * 0.2 + 0.9 * name.endswith("var"))
        states.append(network.state_dict())
    position = {"epoch": 1, "stage": 0, "step": 0}
    CheckpointStore(path, 0).save(0, states, {"position": position}, best=True)
    return path
