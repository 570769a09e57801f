"""Steps of the prototype head as CUDA graphs, on a pretended GPU: the values and operations of the single steps."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from counting_gpu import CountingGpu
from pretend_gpu import GPU, PretendGpu, PretendGraph, aten, kernels_on_cpu, pretended_gpu
from torch import Tensor, nn

from fastcpc.cleaner.on_device import head_graphs
from fastcpc.cleaner.prototype_sgd import SampleSets, sgd_epoch
from fastcpc.distributed import whole_shard
from fastcpc.models.network import Network
from fastcpc.models.prototype_head import PrototypeHead

NUM_SAMPLES, FEATURES, CLASSES, BATCH, STEPS = 60, 12, 5, 8, 7
HEADS = [("linear", False), ("mlp", False), ("linear", True)]


class NotingGpu(PretendGpu):
    """notes: the operations that it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Any] = []

    def compute(self, func: Any, args: Any, kwargs: Any, *, from_gpu: bool, to_gpu: bool) -> Any:
        if (from_gpu or to_gpu) and not func.is_view:
            self.notes.append(func)
        return super().compute(func, args, kwargs, from_gpu=from_gpu, to_gpu=to_gpu)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotingGpu]:
    monkeypatch.setattr(head_graphs, "SHORTEST_RUN", 2)
    head_graphs.warn.cache_clear()
    noting = NotingGpu()
    with pretended_gpu(noting), kernels_on_cpu():
        yield noting


class Training:
    """A head that learns on the pretended GPU."""

    def __init__(self, projector: Any = "linear", normalise: bool = False) -> None:
        torch.manual_seed(1)
        head = PrototypeHead(FEATURES, 4, CLASSES, projector, normalise)
        self.network = Network(nn.Identity(), FEATURES, CLASSES, head).to(GPU)
        self.optimizer = torch.optim.SGD(
            self.network.prototype_parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True
        )
        draw = torch.Generator().manual_seed(2)
        self.draw = draw
        labels_N = torch.randint(CLASSES, (NUM_SAMPLES,), generator=draw).to(GPU)
        clean_N = (torch.rand(NUM_SAMPLES, generator=draw) < 0.5).to(GPU)
        self.sets = SampleSets(labels_N, clean_N, torch.where(clean_N, -1, labels_N), 0.7)

    def epoch(self, lr: float) -> None:
        """A pass over features and batches of its own."""
        self.optimizer.param_groups[0]["lr"] = lr
        feat_ND = torch.rand(NUM_SAMPLES, FEATURES, generator=self.draw).bfloat16().to(GPU, non_blocking=True)
        batches = [torch.randint(NUM_SAMPLES, (BATCH,), generator=self.draw) for _ in range(STEPS)]
        sgd_epoch(self.network, self.optimizer, feat_ND, self.sets, batches, whole_shard(NUM_SAMPLES))

    def state(self) -> list[Tensor]:
        return [tensor.cpu().clone() for tensor in head_graphs.learned(self.optimizer)]


def single_steps(epochs: int, *arguments: Any) -> list[Tensor]:
    """The state after so many passes without graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_graphs, "can_capture", lambda *_: False)
        training = Training(*arguments)
        for number in range(epochs):
            training.epoch(0.1 / (number + 1))
        return training.state()


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("projector", "normalise"), HEADS)
def test_replays_make_the_steps_with_the_present_rate_and_wait_for_nothing(
    projector: str, normalise: bool, gpu: NotingGpu
) -> None:
    training = Training(projector, normalise)
    replays = []
    for number in range(3):
        with gpu.hot() if number > 1 else pytest.MonkeyPatch.context():
            training.epoch(0.1 / (number + 1))
        replays.append(gpu.replays)
    assert replays == [0, 4, 8]  # 3 runs of 2 steps and one of 1
    assert equal(training.state(), single_steps(3, projector, normalise))
    assert training.optimizer.param_groups[0]["lr"] == 0.1 / 3
    assert all(parameter.grad is None for parameter in training.network.prototype_parameters())


@pytest.mark.parametrize(("projector", "normalise"), HEADS)
def test_graph_has_the_operations_of_the_steps(
    projector: str, normalise: bool, gpu: NotingGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[tuple[int, PretendGraph]] = []
    runs: list[tuple[int, list[Any]]] = []
    honest_capture, honest_steps = head_graphs.HeadGraphs.capture, head_graphs.HeadGraphs.steps

    def capture(self: Any, number: int, *arguments: Any) -> Any:
        graph = honest_capture(self, number, *arguments)
        graphs.append((number, graph))  # type: ignore[arg-type]
        return graph

    def steps(self: Any, number: int, step: Any) -> None:
        before = len(gpu.notes)
        honest_steps(self, number, step)
        if gpu.captured is None:
            runs.append((number, gpu.notes[before:]))

    monkeypatch.setattr(head_graphs.HeadGraphs, "capture", capture)
    monkeypatch.setattr(head_graphs.HeadGraphs, "steps", steps)
    training = Training(projector, normalise)
    training.epoch(0.1)
    training.epoch(0.1)
    assert [number for number, _ in graphs] == [number for number, _ in runs] == [2, 1]
    for (_, graph), (_, made) in zip(graphs, runs, strict=True):
        captured = [func for func, *_ in graph.calls]
        assert captured.count(aten._fused_sgd_.tensor_lr) > 0
        with_number = [aten._fused_sgd_.default if func == aten._fused_sgd_.tensor_lr else func for func in captured]
        assert with_number == made


def test_other_momentum_needs_another_capture(gpu: NotingGpu) -> None:
    """A rollback loads momentum into new memory, of which a graph knows nothing."""
    training, states = Training(), []
    for number in range(3):
        if number == 2:
            training.optimizer.load_state_dict(training.optimizer.state_dict())
            momentum = training.optimizer.state[training.network.prototypes]
            momentum["momentum_buffer"] = momentum["momentum_buffer"].clone()
        training.epoch(0.1 / (number + 1))
        states.append(training.state())
    assert equal(states[-1], single_steps(3))
    assert gpu.replays == 8


def fails(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("no memory is left\nand more")


def wrong(self: PretendGraph) -> None:
    self._gpu.replay(self)
    for func, args, *_ in self.calls:
        if func == aten._fused_sgd_.tensor_lr:
            args[0][0].add_(1.0)


@pytest.mark.parametrize(
    ("name", "replacement", "reason"),
    [
        ("graph", fails, "OutOfMemoryError: no memory is left"),
        ("replay", wrong, "a replay differs from its steps by"),
        ("steps", lambda loss: loss.item(), "WaitsForDeviceError: aten._local_scalar_dense.default"),
    ],
)
def test_failure_leaves_the_single_steps_and_one_warning(
    name: str,
    replacement: Callable[..., Any],
    reason: str,
    gpu: NotingGpu,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = single_steps(3)
    if name == "graph":
        monkeypatch.setattr(torch.cuda, "graph", replacement)
    elif name == "replay":
        monkeypatch.setattr(PretendGraph, "replay", replacement)
    else:
        honest = Network.prototype_matrix
        monkeypatch.setattr(
            Network, "prototype_matrix", lambda self: (replacement(self.prototypes.sum()), honest(self))[1]
        )
    training = Training()
    for number in range(3):
        training.epoch(0.1 / (number + 1))
    assert equal(training.state(), expected)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 1
    assert texts[0].startswith(f"prototypes on a GPU by single steps instead of CUDA graphs: {reason}")


def test_heads_of_other_kinds_make_single_steps(gpu: NotingGpu) -> None:
    training = Training()
    training.epoch(0.1)
    feat_ND = torch.zeros(4, FEATURES, device=GPU)
    assert head_graphs.can_capture(training.optimizer, feat_ND)
    assert not head_graphs.can_capture(training.optimizer, feat_ND.cpu())
    parameters = training.network.prototype_parameters()
    assert not head_graphs.can_capture(torch.optim.AdamW(parameters, fused=True), feat_ND)
    unused = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True)
    assert not head_graphs.can_capture(unused, feat_ND) and not unused.state


@pytest.mark.parametrize(("num_steps", "launches"), [(391, 25), (1000, 49)])
def test_launches_of_a_pass(num_steps: int, launches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has three: its features, its sets and the replay. One more sets the learning rate."""
    monkeypatch.setattr(head_graphs, "difference", lambda *_: "")  # a counting GPU's replays change nothing
    gpu = CountingGpu()
    with pretended_gpu(gpu):
        weight = nn.Parameter(torch.ones(3, device=GPU))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
        weight.grad = torch.ones_like(weight)
        optimizer.step()

        def step(feat_BD: Tensor, *_: Tensor) -> None:
            weight.grad = feat_BD.sum(0)
            optimizer.step()

        index_SB = torch.zeros(num_steps, 2, dtype=torch.int64, device=GPU)
        sets_3SB = torch.zeros(3, num_steps, 2, dtype=torch.int64, device=GPU)
        feat_ND = torch.ones(4, 3, device=GPU)
        arguments: Any = (optimizer, step, feat_ND, index_SB, sets_3SB, ())
        assert head_graphs.replayed(*arguments)
        with gpu.stage("pass"):
            assert head_graphs.replayed(*arguments)
    assert gpu.stages["pass"].operations == launches


@pytest.mark.gpu
def test_replays_on_a_gpu_agree_with_the_steps(caplog: pytest.LogCaptureFixture) -> None:
    head_graphs.warn.cache_clear()
    training = Training()
    for number in range(3):
        training.epoch(0.1 / (number + 1))
    assert not caplog.records and head_graphs._of_optimizer[training.optimizer].graphs
    torch.testing.assert_close(training.state(), single_steps(3), rtol=1e-3, atol=1e-4)
