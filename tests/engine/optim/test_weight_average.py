"""The average of weights against a computation in float64, and where a run uses it."""

from pathlib import Path

import pytest
import torch
from small_run import metrics, run, small_config, weights
from small_stages import BareSteps, small_stages
from torch import nn

from fastcpc.engine import train_epoch as train_module
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.learner import Learner, copied_weights
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.optim.weight_average import WeightAverage
from fastcpc.engine.train_epoch import train_epoch
from fastcpc.models.network import Network
from fastcpc.models.prototype_head import PrototypeHead
from fastcpc.semisup import mixmatch

CPU = Numerics(torch.device("cpu"), torch.float32)


def test_average_by_value() -> None:
    """Weights and BatchNorm statistics by the formula, from the initial weights on."""
    config = small_config(Path("unused"), ema={"decay": 0.8})
    own = Learner(1, config, CPU, num_classes=10, in_channels=1, image_size=8, num_samples=20)
    expected = {name: value.double() for name, value in own.network.state_dict().items()}
    draw = torch.Generator().manual_seed(2)
    for _ in range(5):
        own.update((own.network(torch.rand(8, 1, 8, 8, generator=draw)).square().mean(),), torch.arange(8))
        for name, value in own.network.state_dict().items():
            expected[name] = 0.8 * expected[name] + 0.2 * value.double()
    found = own.eval_network.state_dict()
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(found["backbone.norm1.num_batches_tracked"]) == 5
    assert not torch.equal(
        found["backbone.norm1.running_mean"], own.network.state_dict()["backbone.norm1.running_mean"]
    )
    assert own.eval_network.head is own.network.head


def test_tables_of_integers_are_copied() -> None:
    """0.999 i + 0.001 i rounds to less than i: an average of positions would be wrong."""
    backbone = nn.Flatten()
    backbone.register_buffer("places", torch.arange(100))
    network = Network(backbone, 4, 3, PrototypeHead(4, 2, 3, "linear", False))
    average = WeightAverage(network, 0.999)
    average.prepare(network, CPU)
    average.update()
    assert torch.equal(average.network.state_dict()["backbone.places"], torch.arange(100))


def test_the_averages_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets come from both averages in evaluation mode, and the pass changes neither BatchNorm statistics of them."""
    context, learners = small_stages(small_config(Path("unused"), ema={"decay": 0.5}))
    seen, seen_fixed = [], []
    guess, guess_fixed = mixmatch.guess_targets, train_module.fixed_logits

    def watched(own: nn.Module, *rest: object) -> object:
        seen.append((own, own.training))
        return guess(own, *rest)  # type: ignore[arg-type]

    def watched_fixed(other: nn.Module, images: torch.Tensor) -> torch.Tensor:
        seen_fixed.append((other, other.training))
        return guess_fixed(other, images)

    monkeypatch.setattr(mixmatch, "guess_targets", watched)
    monkeypatch.setattr(train_module, "fixed_logits", watched_fixed)
    before = copied_weights(learners[1].eval_network)
    learners[0].eval_network.train()  # as a cleaning leaves it
    train_epoch(learners[0], learners[1], context, BareSteps(), 1, 0)  # type: ignore[arg-type]
    nets = [learner.eval_network for learner in learners]
    assert seen and all(call == (nets[0], False) for call in seen)
    assert seen_fixed and all(call == (nets[1], False) for call in seen_fixed)
    assert all(torch.equal(value, before[name]) for name, value in nets[1].state_dict().items())
    assert nets[0] is not learners[0].network


def test_a_checkpoint_has_both(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", train={"epochs": 1}, ema={"decay": 0.9})
    run(config)
    nets, state = load(find_checkpoint(tmp_path / "run", "latest"))
    for average, member in zip(nets, state["members"], strict=True):
        training = member["weights"]
        assert training.keys() == average.keys()
        assert not torch.equal(training["backbone.conv1.weight"], average["backbone.conv1.weight"])
        assert torch.equal(training["head.prototypes"], average["head.prototypes"])
    run(small_config(tmp_path / "plain", train={"epochs": 1}))
    assert all(  # without a cleaning the average changes nothing else
        torch.equal(plain["backbone.conv1.weight"], member["weights"]["backbone.conv1.weight"])
        for plain, member in zip(weights(tmp_path / "plain"), state["members"], strict=True)
    )
    assert metrics(tmp_path / "plain")[0]["test_top1"] != metrics(tmp_path / "run")[0]["test_top1"]


def test_an_average_starts_at_the_weights_of_a_run_without_one(tmp_path: Path) -> None:
    run(small_config(tmp_path / "plain", train={"epochs": 2}))
    branch = small_config(
        tmp_path / "branch", run={"resume": str(tmp_path / "plain")}, train={"epochs": 3}, ema={"decay": 0.5}
    )
    run(branch)
    assert [line["epoch"] for line in metrics(tmp_path / "branch")] == [2]
    back = small_config(tmp_path / "back", run={"resume": str(tmp_path / "branch")})
    run(back)
    assert [line["epoch"] for line in metrics(tmp_path / "back")] == [3]
