"""FLOPs per image by value, and their sum over a run."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from small_run import metrics, run, small_config
from torch import Tensor, nn

from fastcpc.config.schema import Config
from fastcpc.engine.outputs.flops import count_image_flops
from fastcpc.engine.run_state import RunState
from fastcpc.models.build import build_network


class Grouped(nn.Module):
    """A dense, a depthwise and a strided convolution, BatchNorm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 4, 2, stride=2)
        self.classifier = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.down(self.norm(self.depthwise(self.stem(images)))).mean((2, 3)))
        return out


def test_flops_are_those_of_the_formulas() -> None:
    """The gradient of the images is not needed, so that the first layer has one gradient and the others two."""
    found = count_image_flops(Grouped(), 3, 6)
    stem, depthwise, down, linear = 2 * 36 * 8 * 27, 2 * 36 * 8 * 9, 2 * 9 * 4 * 32, 2 * 4 * 5
    assert found is not None
    assert found.forward == stem + depthwise + down + linear
    assert found.training == 2 * stem + 3 * (depthwise + down + linear)


def test_counting_changes_neither_the_network_nor_the_random_numbers() -> None:
    network = Grouped().eval()
    before, state = {name: tensor.clone() for name, tensor in network.state_dict().items()}, torch.get_rng_state()
    count_image_flops(network, 3, 6)
    assert not network.training and torch.equal(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_layer_is_in_train_mode() -> None:
    """Synchronised BatchNorm would send messages."""

    class Alone(nn.BatchNorm2d):
        def forward(self, values: Tensor) -> Tensor:
            assert not self.training
            return super().forward(values)

    network = Grouped()
    network.norm = Alone(8)
    plain, found = count_image_flops(Grouped(), 3, 6), count_image_flops(network.train(), 3, 6)
    assert plain is not None and found == plain and network.training


def test_a_network_that_asks_for_values_has_no_count() -> None:
    class Branching(Grouped):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (1 if images.sum() > 0 else 2)

    assert count_image_flops(Branching(), 3, 6) is None


@pytest.mark.parametrize("views", [1, 2])
def test_a_run_records_the_flops_of_its_steps(tmp_path: Path, views: int) -> None:
    """Warm-up: both networks on all 240 images in batches of 32. Then scoring, and MixMatch steps of the partition."""
    config = small_config(tmp_path, train={"epochs": 3, "warmup_epochs": 1}, semisup={"views": views})
    summary = run(config)
    lines = metrics(tmp_path)
    image = count_image_flops(digits_network(config), 1, 8)
    assert image is not None
    assert lines[0]["training_flops"] == 2 * 8 * 32 * image.training
    for before, line in pairwise(lines):
        steps = sum(-(-num // 32) for num in line["labelled"])
        step = views * (3 * image.forward + 2 * image.training)  # per labelled image and its unlabelled one
        expected = 2 * 240 * image.forward + steps * 32 * step
        assert line["training_flops"] - before["training_flops"] == expected
    assert summary["training_flops"] == lines[-1]["training_flops"]


def test_flops_stay_unknown_after_a_checkpoint_without_them() -> None:
    state = RunState()
    state.load({"position": {"epoch": 1, "stage": 0, "step": 0}, "record": {}, "past": old_history()})
    state.begin_epoch("train", 0.1)
    state.add_flops(7)
    state.record |= {"seconds": {"train": 1.0}, "test_top1": 50.0}
    state.close_epoch()
    assert state.record["training_flops"] is None


def old_history() -> dict[str, object]:
    """Of a checkpoint of an older version."""
    return {"test_top1": [40.0], "seconds": 1.0, "best_epoch": 0}


def digits_network(config: Config) -> nn.Module:
    """The network of a digits run."""
    return build_network(config.model, config.cpc, num_classes=10, in_channels=1, image_size=8, seed=0)
