"""Results of a CUDA graph are overwritten by the next replay: no pass may read them afterwards.

In the place of torch.compile, each function runs as it is, and what it has returned becomes NaN when the
next one begins.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_stages import CONFIG, BareSteps, small_stages
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fastcpc.data.sampler import sequential_batches
from fastcpc.engine import numerics, train_epoch
from fastcpc.engine.numerics import Numerics
from fastcpc.engine.scoring import predict_batch, score_samples
from fastcpc.engine.train_epoch import semi_supervised, warm_up

AS_GRAPHS = Numerics(torch.device("cpu"), torch.float32, "graphs", compiles_steps=True, score_batch=64)


class GraphMemory:
    """Stands for ``compiled_once``. calls: of replayed functions."""

    def __init__(self) -> None:
        self.calls, self._returned = 0, list[Tensor]()

    def __call__(self, function: Any, mode: str, device_type: str) -> Any:
        def replayed(*arguments: Any) -> Any:
            for tensor in self._returned:
                tensor.data.fill_(torch.nan)
            self.calls += 1
            result = function(*arguments)
            self._returned = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            return result

        return replayed


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> GraphMemory:
    made = GraphMemory()
    monkeypatch.setattr(numerics, "compiled_once", made)
    return made


def passes(used: Numerics) -> dict[str, Tensor]:
    """Losses, weights and scores after a pass of each kind."""
    config = replace(CONFIG, semisup=replace(CONFIG.semisup, batches_per_epoch=5))
    training, (own, other) = small_stages(config)
    training = replace(training, numerics=used)
    warm_up(own, training, BareSteps(), epoch=0, start=0)  # type: ignore[arg-type]
    semi_supervised(own, other, training, BareSteps(), epoch=2, start=0)  # type: ignore[arg-type]
    losses = torch.stack([loss for loss, _ in own.steps])
    batches = training.loader.stream(sequential_batches(training.loader.num_samples, 64), ("test",), 1)
    scores = score_samples([own.network, other.network], batches, training.labels_N, used)
    return {"losses": losses, "sums": own.sums, "pair": scores.pair.loss_N, **own.network.state_dict()}


@pytest.mark.parametrize("ahead", [1, 2])
def test_no_pass_reads_a_result_after_the_next_replay(
    ahead: int, memory: GraphMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ahead: for how many steps the fixed network guesses at once."""
    monkeypatch.setattr(train_epoch, "steps_ahead", lambda *_: ahead)
    plain = passes(replace(AS_GRAPHS, compile="false", compiles_steps=False))
    assert memory.calls == 0
    replayed = passes(AS_GRAPHS)
    assert memory.calls > 20 and plain.keys() == replayed.keys()
    for name, expected in plain.items():
        assert replayed[name].equal(expected), name


def test_predictions_of_a_batch_outlast_the_next(memory: GraphMemory) -> None:
    _, (own, _) = small_stages(CONFIG)
    images = torch.rand(2, 3, 1, 8, 8)
    network = own.network.eval()
    kept = [predict_batch(network, batch, AS_GRAPHS) for batch in images]
    for batch, found in zip(images, kept, strict=True):
        expected = predict_batch(network, batch, replace(AS_GRAPHS, compile="false"))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
