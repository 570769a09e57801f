"""The counts of an epoch on a GPU are pinned: a change that adds launches to a step fails without a GPU."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from counting_gpu import LIMIT, CountingGpu, values_of
from pretend_gpu import pretended_gpu

from fastcpc.config.schema import Config, CpcConfig, ModelConfig, TrainConfig

BENCH = Path(__file__).parents[2] / "bench"
BATCH, ROWS, WIDTH = 128, 512, 16
# Operations of torch per unit. When a change lowers one, lower it here; the bench shows bytes and FLOPs, too.
OPERATIONS = {
    "score views": 2, "score": 207, "prototype pass": 8, "prototype scores": 5, "views": 5, "step": 646,
    "evaluate views": 2, "evaluate": 205,
}  # fmt: skip


# Kernels and library calls of a compiled step of digits_cnn, as inductor plans them for a GPU.
LAUNCHES = {
    "step": {
        "reduction": 32, "pointwise": 11, "convolution": 4, "addmm": 4, "mm": 4, "foreach": 3,
        "aten.convolution_backward.default": 2,
    },
    "guesses": {"pointwise": 8, "convolution": 2, "addmm": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def counts() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH), str(BENCH / "speed"), *sys.path])
        for loaded in ("harness", "gpu_timing", "counts", "trainers"):
            patch.delitem(sys.modules, loaded, raising=False)
        yield importlib.import_module("counts")


@pytest.fixture(scope="module")
def stages(counts: Any) -> Any:
    sizes = [f"train.batch_size={BATCH}", f"train.score_batch_size={ROWS}"]
    config = counts.counted_config([f"model.width={WIDTH}", "cpc.embedding_dim=64", *sizes])
    return {stage.name: stage for stage in counts.count(config, num_train=ROWS, num_test=ROWS, labelled=ROWS)}


def test_operations(stages: Any) -> None:
    assert {name: stage.one.operations for name, stage in stages.items()} == OPERATIONS


def test_units_of_an_epoch(stages: Any) -> None:
    assert {name: stage.units for name, stage in stages.items() if name in ("views", "score", "evaluate")} == {
        "views": 2 * ROWS // BATCH, "score": 1, "evaluate": 1,
    }  # fmt: skip


def test_flops_of_convolutions_and_products(stages: Any) -> None:
    """A step passes 6 batches forward, then 4 forward and backward, which is three times as much: 18 in all."""
    forward = stages["score"].one.flops / (2 * 512)  # both networks, batches of 512
    assert stages["step"].one.flops / (18 * BATCH * forward) == pytest.approx(1, abs=0.01)


def test_views_of_cached_images() -> None:
    """One kernel per strong view, and no copy from pageable memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH / "host"), str(BENCH), *sys.path])
        bench = importlib.import_module("image_counts")
        parts = bench.count(cached=True, resized_crops=False, images=8)
        of_files = bench.count(cached=False, resized_crops=False, images=bench.CHUNK + 1)
    assert {name: one.operations for name, one in parts.items()} == {
        "copies and the rest": 9, "crops": 24, "strong views": 5,
    }  # fmt: skip
    assert [one.pageable for one in (*parts.values(), *of_files.values())] == [0] * 5
    assert parts["copies and the rest"].sent == 3 and parts["strong views"].sent == 2


def test_counter_tells_pinned_from_pageable_memory() -> None:
    gpu, tensor = CountingGpu(), torch.zeros(4)
    with pretended_gpu(gpu), gpu.stage("all"):
        tensor.to("cuda")
        tensor.pin_memory().to("cuda", non_blocking=True)
        torch.empty(2, pin_memory=True).to("cuda", non_blocking=True)
    one = gpu.stages["all"]
    assert (one.sent, one.sent_bytes, one.pageable) == (3, 16 + 16 + 8, 1)


@pytest.mark.slow
def test_launches_of_a_compiled_step(counts: Any) -> None:
    """All casts of weights are one launch (foreach), so are those of gradients and the counts of BatchNorm."""
    model = ModelConfig(name="digits_cnn", width=16)
    config = Config(model=model, cpc=CpcConfig(embedding_dim=8), train=TrainConfig(batch_size=64))
    assert counts.compiled_launches(config, image_size=8, in_channels=1) == LAUNCHES


def test_counter_sees_what_a_gpu_would_do() -> None:
    gpu = CountingGpu()
    with pretended_gpu(gpu):
        large = torch.zeros(LIMIT + 1).to("cuda")
        weight = torch.rand(4, 8, device="cuda")
        with gpu.stage("all"):
            product = weight.view(8, 4) @ weight  # a view is no operation
            large.add_(1)
            other = large[:2] * 2
        after = product + 1
    one = gpu.stages["all"]
    assert one.operations == 3 and one.flops == 2 * 8 * 4 * 8
    assert one.num_bytes == 4 * ((32 + 32 + 64) + 2 * (LIMIT + 1) + (2 + 2))
    assert after.held.is_cpu and other.held.is_meta and large.held.is_meta


def test_weight_is_cast_once_per_unit() -> None:
    gpu = CountingGpu()
    with pretended_gpu(gpu):
        layer = torch.nn.Linear(4, 4).to("cuda")
        gpu.weights = values_of(layer)
        images = torch.rand(2, 4, device="cuda")
        for _ in range(2):
            with gpu.stage("unit"), torch.autocast("cuda", torch.bfloat16):
                layer(images)
                layer(images)
    assert gpu.stages["unit"].operations == 2 * (2 + 2 + 2)  # casts of weight and bias, twice of images, two products
