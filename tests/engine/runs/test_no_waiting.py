"""Between two log points nothing asks the device for a value: on a GPU each such question stops the queue of work.

Without a GPU a pretended one stands for it, which also refuses operations on tensors of both places.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from image_run import coloured_images, image_config
from pretend_gpu import (
    Launches,
    MixedDevicesError,
    MixedLayoutsError,
    PretendGpu,
    WaitsForDeviceError,
    kernels_on_cpu,
    pretended_gpu,
)
from small_stages import CONFIG, BareSteps, small_stages
from torch import Tensor

from fastcpc.cleaner.prototypes import prototype_clean_prob, train_prototypes
from fastcpc.data.augment import fused_check
from fastcpc.data.augment.policies import WeakPolicy, strong_policy
from fastcpc.data.loaders.base import Batch
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.loaders.memory import MemoryLoader
from fastcpc.data.sampler import sequential_batches
from fastcpc.engine.evaluate import evaluate
from fastcpc.engine.launch import load_data
from fastcpc.engine.learner import Learner
from fastcpc.engine.optim.optimizers import build_sgd
from fastcpc.engine.scoring import SampleScores, score_samples
from fastcpc.engine.train_epoch import semi_supervised, warm_up
from fastcpc.kernels import prototype_triton
from fastcpc.kernels.views import launch

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ON_CPU, ON_GPU = replace(CONFIG, device="cpu"), replace(CONFIG, device="cuda")


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    with pretended_gpu() as pretended:
        yield pretended


def never_waiting(gpu: PretendGpu) -> BareSteps:
    """Steps in which neither the loader nor its consumer may wait."""

    def steps(batches: Iterator[Batch]) -> Iterator[tuple[int, Batch]]:
        for step in count():
            with gpu.hot():
                batch = next(batches, None)
                if batch is None:
                    return
                yield step, batch

    return BareSteps(steps)


def trained(config: Any, steps: BareSteps) -> Learner:
    training, (own, other) = small_stages(config)
    assert warm_up(own, training, steps, epoch=0, start=0) == 8
    assert semi_supervised(own, other, training, steps, epoch=1, start=0) == 4
    return own


@pytest.mark.parametrize(
    ("precision", "strong"), [("fp32", "geometric"), ("bf16", "randaugment"), ("fp16", "autoaugment")]
)
def test_training_does_not_synchronise(gpu: PretendGpu, precision: Any, strong: Any) -> None:
    config = replace(ON_GPU, precision=precision, augment=replace(CONFIG.augment, strong=strong))
    own = trained(config, never_waiting(gpu))
    assert own.network.classifier.weight.is_cuda and own.sums.is_cuda and not own.non_finite_parts()
    if precision == "fp32":
        there = trained(ON_CPU, BareSteps())
        torch.testing.assert_close(own.sums.cpu(), there.sums, rtol=1e-5, atol=1e-5)


def test_scoring_does_not_synchronise_and_evaluation_does_once(gpu: PretendGpu) -> None:
    def results(config: Any, steps: BareSteps) -> Any:
        training, learners = small_stages(config)
        networks, labels_N = [learner.network for learner in learners], training.labels_N

        def batches() -> Iterator[Batch]:
            stream = training.loader.stream(sequential_batches(len(labels_N), 100), ("test",), 0)
            return (batch for _, batch in steps.number(stream))

        scoring = score_samples(networks, batches(), labels_N, training.numerics)
        gpu.waits.clear()
        return scoring.networks[0], evaluate(networks, batches(), labels_N, training.numerics)

    scores, accuracy = results(ON_GPU, never_waiting(gpu))
    assert list(gpu.waits.values()) == [1]
    there, same = results(ON_CPU, BareSteps())
    assert accuracy == same
    for name in SampleScores.__dataclass_fields__:
        torch.testing.assert_close(getattr(scores, name).cpu(), getattr(there, name))


def updated_prototypes(config: Any, hot: Any) -> tuple[Tensor, Tensor]:
    training, (own, _) = small_stages(config)
    labels_N, clean_N = training.labels_N, own.partition.clean_N  # type: ignore[union-attr]
    draw = torch.Generator().manual_seed(1)
    feat_ND = torch.rand(len(labels_N), own.network.feature_dim, generator=draw).to(labels_N.device)
    pseudo_N = torch.where(clean_N, -1, labels_N)
    with hot:
        train_prototypes(
            own.network, own.cpc_optimizer, feat_ND, labels_N, clean_N, pseudo_N, config.cpc, alpha=1.0, batch_size=32,
            seed=3,
        )  # fmt: skip
        scores_N = prototype_clean_prob(own.network, feat_ND, labels_N)
    return own.network.prototypes.detach().cpu(), scores_N.cpu()


def test_cleaning_does_not_synchronise(gpu: PretendGpu) -> None:
    with kernels_on_cpu():
        on_gpu = updated_prototypes(ON_GPU, gpu.hot())
        torch.testing.assert_close(on_gpu, updated_prototypes(ON_CPU, nullcontext()))


def test_triton_launch_does_not_synchronise(gpu: PretendGpu) -> None:
    kernels = {name: Launches() for name in ("forward_kernel", "backward_kernel", "scores_kernel")}
    with patch.multiple(prototype_triton, **kernels):
        updated_prototypes(ON_GPU, gpu.hot())
    assert [kernel.count for kernel in kernels.values()] == [16, 16, 1]


@pytest.mark.parametrize("strong", ["randaugment", "autoaugment"])
def test_views_in_memory_do_not_synchronise(gpu: PretendGpu, strong: Any) -> None:
    pixels = torch.randint(256, (40, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    policy = strong_policy(replace(CONFIG.augment, strong=strong))

    def views(device: torch.device, hot: Any) -> Batch:
        loader = MemoryLoader(pixels, (0.4,) * 3, (0.2,) * 3, WeakPolicy(flip=True, padding=2), policy, device)
        with hot:
            return next(loader.stream([torch.arange(40)], ("weak", "strong", "test"), 1))

    on_gpu, there = views(GPU, gpu.hot()), views(CPU, nullcontext())
    for one, other in zip(on_gpu.views, there.views, strict=True):
        assert torch.equal(one.cpu(), other)


def test_views_of_the_kernel_do_not_synchronise(gpu: PretendGpu) -> None:
    """One copy to the device, then a launch per view. The kernel itself cannot run here."""
    pixels = torch.randint(256, (40, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    kernel, policy = Launches(), strong_policy(CONFIG.augment)
    with patch.object(fused_check, "kernel_problem", lambda *_: ""), patch.object(launch, "view_kernel", kernel):
        loader = MemoryLoader(pixels, (0.4,) * 3, (0.2,) * 3, WeakPolicy(flip=True, padding=2), policy, GPU)
        with gpu.hot():
            batch = next(loader.stream([torch.arange(40).flip(0)], ("weak", "weak", "strong", "strong", "test"), 1))
    assert kernel.count == 5 and batch.index.cpu().equal(torch.arange(40).flip(0))
    assert all(view.is_cuda and view.shape == (40, 3, 12, 12) for view in batch.views)


def test_views_of_image_files_do_not_synchronise(gpu: PretendGpu, tmp_path: Path) -> None:
    coloured_images(tmp_path)
    config = image_config(tmp_path, tmp_path / "run", "torch")
    dataset, _ = load_data(config)

    def views(device: torch.device, hot: Any) -> Batch:
        loader = make_loader(dataset.train, dataset, config.data, config.augment, device)
        with hot:
            return next(loader.stream([torch.arange(42)], ("weak", "strong"), 1))

    on_gpu, there = views(GPU, gpu.hot()), views(CPU, nullcontext())
    for one, other in zip(on_gpu.views, there.views, strict=True):
        torch.testing.assert_close(one.cpu(), other)


def test_strong_views_of_image_files_are_one_kernel_each(gpu: PretendGpu, tmp_path: Path) -> None:
    coloured_images(tmp_path)
    config = image_config(tmp_path, tmp_path / "run", "torch")
    dataset, _ = load_data(config)
    kernel = Launches()
    with patch.object(fused_check, "kernel_problem", lambda *_: ""), patch.object(launch, "view_kernel", kernel):
        loader = make_loader(dataset.train, dataset, config.data, config.augment, GPU)
        with gpu.hot():
            batch = next(loader.stream([torch.arange(42)], ("weak", "strong", "strong"), 1))
    assert kernel.count == 2
    assert all(view.is_cuda and view.is_contiguous(memory_format=torch.channels_last) for view in batch.views)


@pytest.mark.parametrize(
    "question",
    [lambda loss: loss.item(), lambda loss: float(loss), lambda loss: loss.cpu(), lambda loss: bool(loss > 0),
     lambda loss: loss[None][loss[None] > 0], lambda loss: loss.tolist(), lambda loss: torch.nonzero(loss[None]),
     lambda loss: torch.bincount(loss[None].long()), lambda loss: torch.ones(2)[: loss.long()],
     lambda loss: torch.tensor([1.0], device="cuda"), lambda loss: torch.ones(3).to("cuda"),
     lambda loss: loss[None][torch.tensor([0])], lambda loss: torch.nn.functional.one_hot(loss[None].long())],
)  # fmt: skip
def test_guard_detects_every_synchronisation(gpu: PretendGpu, question: Callable[[Tensor], Any]) -> None:
    weight = torch.rand(3, device="cuda", requires_grad=True)
    with gpu.hot():
        loss = weight.square().mean()
        loss.backward()
        with pytest.raises(WaitsForDeviceError):
            question(loss.detach())


@pytest.mark.parametrize(
    "mixture",
    [lambda on_gpu: on_gpu + torch.ones(3), lambda on_gpu: torch.cat([on_gpu, torch.ones(1)]),
     lambda on_gpu: torch.stack([on_gpu.sum(), torch.ones(())]), lambda on_gpu: torch.ones(3).add_(on_gpu),
     lambda on_gpu: on_gpu.gather(0, torch.tensor([1])), lambda on_gpu: on_gpu.where(torch.ones(3) > 0, 0.0)],
)  # fmt: skip
def test_guard_detects_mixed_devices(gpu: PretendGpu, mixture: Callable[[Tensor], Any]) -> None:
    on_gpu = torch.rand(3, device="cuda")
    assert (on_gpu * torch.tensor(2.0)).is_cuda  # a single number goes along with the launch
    with pytest.raises(MixedDevicesError):
        mixture(on_gpu)


def test_guard_detects_momentum_in_another_layout(gpu: PretendGpu) -> None:
    weight = torch.nn.Parameter(torch.rand(4, 3, 2, 2, device="cuda").contiguous(memory_format=torch.channels_last))
    optimizer = build_sgd([weight], CONFIG.train)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.state[weight]["momentum_buffer"] = torch.ones(4, 3, 2, 2, device="cuda")
    with pytest.raises(MixedLayoutsError):
        optimizer.step()


@pytest.mark.gpu
def test_training_on_a_gpu_does_not_synchronise() -> None:
    training, (own, other) = small_stages(ON_GPU)

    def watched(batches: Iterator[Batch]) -> Iterator[tuple[int, Batch]]:
        """After the first step, which may set things up."""
        for step, batch in enumerate(batches):
            yield step, batch
            torch.cuda.set_sync_debug_mode("error")

    for stage in (
        lambda: warm_up(own, training, BareSteps(watched), epoch=0, start=0),
        lambda: semi_supervised(own, other, training, BareSteps(watched), epoch=1, start=0),
    ):
        try:
            stage()
        finally:
            torch.cuda.set_sync_debug_mode("default")
