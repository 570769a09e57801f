"""Times on a GPU are those of the device: on a simulated one, whose host is slower than its kernels."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_clock import GpuClock, gpu_clock
from pretend_gpu import Launches, kernels_on_cpu, pretended_gpu

from fastcpc.kernels.views import launch

BENCH = Path(__file__).parents[2] / "bench"
LAUNCH, KERNEL = 10e-6, 1e-6


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    for loaded in ("harness", "gpu_timing"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    return importlib.import_module("harness")


@pytest.fixture
def clock() -> Iterator[GpuClock]:
    with pretended_gpu(), gpu_clock(LAUNCH, KERNEL) as made:
        yield made


def ten_launches() -> None:
    value = torch.ones(4, device="cuda")
    for _ in range(10):
        value.add_(1)


def test_time_of_launches_is_not_part_of_a_call(harness: Any, clock: GpuClock) -> None:
    timings = harness.time_in_turns({"ten": ten_launches, "one": lambda: torch.ones(1, device="cuda") * 2}, 3, "cuda")
    ten, one = timings["ten"], timings["one"]
    assert (ten.median, ten.low, ten.high) == pytest.approx([10 * KERNEL] * 3)
    assert one.median == pytest.approx(KERNEL)
    assert ten.queued and ten.host == pytest.approx(10 * LAUNCH)
    assert ten.record()["queued"] is True


def test_wait_grows_until_the_host_is_hidden(harness: Any, clock: GpuClock) -> None:
    timer = harness.gpu_timing.QueuedTimer(ten_launches)
    clock.launch = 4 * LAUNCH  # a busy moment after the probe
    while not timer.device:
        timer.measure()
    assert timer.queued and timer.device == pytest.approx([10 * KERNEL])
    assert clock.slept == pytest.approx([1.5e-4, 3e-4, 6e-4], rel=1e-3)


def test_calls_of_a_turn_may_depend_on_each_other(harness: Any, clock: GpuClock) -> None:
    """Backward needs the loss of forward also where a measurement is repeated, as in the parts of a step."""
    kept: dict[str, Any] = {}

    def forward() -> None:
        ten_launches()
        kept["loss"] = torch.ones(4, device="cuda")

    def backward() -> None:
        loss = kept.pop("loss")
        clock.launch = min(2 * clock.launch, 64 * LAUNCH)  # a machine that becomes busier
        for _ in range(10):
            loss.add_(1)

    timings = harness.time_in_turns({"forward": forward, "backward": backward}, 3, "cuda")
    for timing in timings.values():
        assert timing.queued and timing.n >= 3 and timing.high == pytest.approx(10 * KERNEL, rel=0.2)


@pytest.mark.parametrize("waits", [True, False])
def test_call_that_cannot_be_queued_at_once_says_so(harness: Any, clock: GpuClock, waits: bool) -> None:
    """It waits for the device in its middle, or it needs the host for longer than a queue may be filled."""

    def call() -> None:
        ten_launches()
        if waits:
            clock.synchronize()
        else:
            clock.host += 2 * harness.gpu_timing.LONGEST
        ten_launches()

    timing = harness.time_in_turns({"call": call}, 2, "cuda")["call"]
    assert timing.queued is False and timing.record()["queued"] is False
    assert timing.median > 10 * LAUNCH


def test_inputs_take_turns(harness: Any) -> None:
    seen: list[int] = []
    call = harness.gpu_timing.in_turns(lambda a, b: seen.append(a + b), [(1, 1), (2, 2), (3, 3)])
    for _ in range(4):
        call()
    assert seen == [2, 4, 6, 2]
    copies = harness.gpu_timing.copies
    assert (copies(10, "cpu"), copies(10, "cuda"), copies(2**30, "cuda")) == (1, 16, 2)
    assert copies(20 * 2**20, "cuda") * 20 * 2**20 >= harness.gpu_timing.CACHE_BYTES


def bench_named(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH / "speed"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_bench_of_the_loss_on_a_gpu(harness: Any, clock: GpuClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a GPU, with the forms of a CPU in place of what is compiled."""
    kernels = bench_named("kernels", monkeypatch)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(kernels, "TRUTH_ELEMENTS", 64)  # several parts of the rows
    with kernels_on_cpu():
        loss = kernels.loss_row(20, 5, "bfloat16", "cuda", 3)
        scores = kernels.scores_row(30, 5, "cuda", 3)
    for row in (loss, scores):
        assert row.check.passed
        assert all(timing.queued and timing.host > timing.median for timing in row.timings.values())
    assert list(loss.timings) == ["fastcpc", "plain", "compiled"] and loss.floor is None


@pytest.mark.parametrize("problem", ["", "9.0% of the pixels differ after Invert"])
def test_bench_of_views_on_a_gpu(
    harness: Any, clock: GpuClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    """A launch per view against many operations; no speed where the views differ."""
    kernels = bench_named("kernels", monkeypatch)
    monkeypatch.setattr(launch, "view_kernel", Launches())
    monkeypatch.setattr(kernels.fused_check, "difference", lambda *_: problem)
    row = kernels.views_row("strong", 8, "cuda", 3)
    assert row.check.passed == (not problem) and capsys.readouterr().out.strip() == problem
    assert sorted(row.timings) == ([] if problem else ["fastcpc", "plain"])
    if not problem:
        assert row.timings["fastcpc"].median < 0.1 * row.timings["plain"].median


def test_bench_of_mixtures_on_a_gpu(harness: Any, clock: GpuClock, monkeypatch: pytest.MonkeyPatch) -> None:
    gmm = bench_named("gmm", monkeypatch)
    monkeypatch.setattr(gmm, "kernels_of", lambda call: (call() and 7, 2e-5))
    with kernels_on_cpu():
        rows = gmm.bench(400, 3, "cuda", 2, timed_loop=False)
    for row in rows:
        assert row.check.passed and list(row.timings) == ["fastcpc"]
        assert row.notes == {"kernels": 7, "kernels_ms": 0.02}
