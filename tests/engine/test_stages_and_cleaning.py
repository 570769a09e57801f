"""Which samples a step sees, and which cleaner rules when."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_run import small_config
from small_stages import BareSteps, small_stages

from fastcpc.cleaner.partition import Partition
from fastcpc.data.loaders.base import Batch
from fastcpc.engine import train_epoch
from fastcpc.engine.cleaning import active_cleaner
from fastcpc.engine.learner import Learner
from fastcpc.engine.numerics import (
    Arithmetic,
    Numerics,
    choose_precision,
    probe,
    resolve_numerics,
    set_determinism,
)
from fastcpc.engine.optim.learning_rate import learning_rate
from fastcpc.engine.train_epoch import TrainContext, paired_batches, semi_supervised
from fastcpc.errors import InputError
from fastcpc.semisup.mixmatch import StepLosses, semisup_loss

CPU = Numerics(torch.device("cpu"), torch.float32)


def training(num_samples: int, **semisup: Any) -> TrainContext:
    config = small_config(Path("unused"), semisup=semisup)
    return TrainContext(
        config, CPU, SimpleNamespace(num_samples=num_samples), torch.zeros(num_samples, dtype=torch.int64), 10
    )  # type: ignore[arg-type]


def learner(clean: torch.Tensor, number: int = 1) -> Any:
    return SimpleNamespace(number=number, partition=Partition(clean, clean.float()))


def test_epoch_visits_the_labelled_set_once() -> None:
    clean = torch.arange(500) < 100
    batches = paired_batches(learner(clean), training(500), epoch=3)
    assert [len(batch) for batch in batches] == [64] * 4  # ceil(100 / 32) steps of 32 + 32
    labelled = torch.cat([batch[:32] for batch in batches])
    unlabelled = torch.cat([batch[32:] for batch in batches])
    assert sorted(labelled[:100].tolist()) == list(range(100)) and bool((labelled < 100).all())
    assert bool((unlabelled >= 100).all()) and len(set(unlabelled.tolist())) == 128


def test_small_unlabelled_sets_repeat_or_are_replaced_by_all_samples() -> None:
    batches = paired_batches(learner(torch.arange(500) >= 40), training(500), epoch=0)
    seen = torch.cat([batch[32:] for batch in batches]).tolist()
    assert set(seen) == set(range(40)) and seen.count(0) >= len(batches) * 32 // 40
    batches = paired_batches(learner(torch.arange(500) >= 31), training(500), epoch=0)
    assert len(set(torch.cat([batch[32:] for batch in batches]).tolist())) > 400
    batches = paired_batches(learner(torch.ones(500, dtype=torch.bool)), training(500), epoch=0)
    assert all(len(batch) == 64 for batch in batches)


def test_steps_per_epoch_setting_sets_the_number_of_batches() -> None:
    assert len(paired_batches(learner(torch.arange(500) < 100), training(500, batches_per_epoch=9), epoch=0)) == 9


def test_batch_order_depends_on_epoch_and_network_only() -> None:
    clean = torch.arange(500) < 100
    first = torch.cat(paired_batches(learner(clean), training(500), epoch=1))
    assert torch.equal(first, torch.cat(paired_batches(learner(clean), training(500), epoch=1)))
    assert not torch.equal(first, torch.cat(paired_batches(learner(clean), training(500), epoch=2)))
    assert not torch.equal(first, torch.cat(paired_batches(learner(clean, 2), training(500), epoch=1)))


def test_active_cleaner_by_epoch() -> None:
    config = small_config(
        Path("unused"), "cpc_awr", train={"epochs": 450, "warmup_epochs": 10}, cleaner={"warmup": 0.05}
    )
    active = [active_cleaner(config, epoch) for epoch in range(10, 40)]
    assert active == [0] * 23 + [1] * 7  # 5 % of 450 epochs is 22.5
    assert active_cleaner(replace(config, cleaner=replace(config.cleaner, kind="gmm_agn")), 400) == 0
    assert active_cleaner(replace(config, cleaner=replace(config.cleaner, kind="cpc_only")), 10) == 0


def test_learning_rate_drops_once() -> None:
    train = small_config(Path("unused"), train={"epochs": 450, "lr_drop_epoch": 225}).train
    assert [learning_rate(epoch, train) for epoch in (0, 224, 225, 449)] == [0.02, 0.02, 0.002, 0.002]


def test_snapshot_restores_weights_and_momentum() -> None:
    config = small_config(Path("unused"))
    own = Learner(1, config, CPU, num_classes=10, in_channels=1, image_size=8, num_samples=20)
    images = torch.rand(8, 1, 8, 8)
    fresh = own.snapshot()
    own.update((own.network(images).square().mean(),), torch.arange(8))
    kept = own.snapshot()
    for _ in range(2):
        own.update((own.network(images).square().mean(),), torch.arange(8))
    own.restore(kept)
    again = own.snapshot()
    assert all(torch.equal(kept["network"][name], again["network"][name]) for name in kept["network"])
    assert all(torch.equal(a, b) for a, b in zip(kept["momentum"], again["momentum"], strict=True))
    own.restore({**kept, "momentum": [a.contiguous() for a in kept["momentum"]]})  # of a network that lay otherwise
    assert [a.stride() for a in own.snapshot()["momentum"]] == [p.stride() for p in own.network.backbone_parameters()]
    own.restore(fresh)
    assert all(value is None for value in own.snapshot()["momentum"])


def test_missing_device_and_unsupported_precision_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = small_config(Path("unused"))
    assert resolve_numerics(config).device == CPU.device
    assert resolve_numerics(replace(config, precision="bf16")).dtype == torch.bfloat16
    with pytest.raises(InputError, match="device=cuda: torch finds no usable GPU"):
        resolve_numerics(replace(config, device="cuda"))
    with pytest.raises(InputError, match="precision: fp16 needs a GPU"):
        resolve_numerics(replace(config, precision="fp16"))


OLD_CPU, NEW_CPU = Arithmetic("cpu"), Arithmetic("cpu", cpu_bf16=True)
V100, H200 = Arithmetic("cuda", capability=(7, 0)), Arithmetic("cuda", capability=(9, 0))


@pytest.mark.parametrize(
    ("can", "auto"), [(OLD_CPU, "fp32"), (NEW_CPU, "bf16"), (V100, "fp16"), (H200, "bf16")], ids=str
)
def test_precision_auto_is_bf16_where_the_device_multiplies_it(can: Arithmetic, auto: str) -> None:
    assert choose_precision("auto", can) == auto
    assert choose_precision("fp32", can) == "fp32"


def test_precision_that_the_device_lacks_is_an_error() -> None:
    assert choose_precision("bf16", OLD_CPU) == "bf16"  # by conversion: slow, and the same numbers
    assert choose_precision("bf16", Arithmetic("cuda", capability=(8, 0))) == "bf16"
    with pytest.raises(
        InputError, match=r"precision: bf16 needs .* 8\.0 or later, and this one has 7\.0; use precision="
    ):
        choose_precision("bf16", V100)


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16"])
def test_cpu_bf16_is_read_from_its_capabilities(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, flag: True})
    assert probe(torch.device("cpu")) == NEW_CPU
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, flag: False})
    assert probe(torch.device("cpu")) == OLD_CPU


def test_compilation_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(small_config(Path("unused")), compile="default", device="cpu")
    assert resolve_numerics(config).compile == "default"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"compile=default: torch.compile needs a compiler here, and none of g\+\+"):
        resolve_numerics(config)


def test_tf32_is_off_by_default() -> None:
    config = small_config(Path("unused"))
    try:
        set_determinism(replace(config, tf32=True), CPU)
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    finally:
        set_determinism(config, CPU)
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32


def test_channels_last_is_off_where_onednn_crashes() -> None:
    def stride_of(conv: torch.nn.Conv2d) -> tuple[int, ...]:
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), conv)
        CPU.prepare(network)
        return network[0].weight.stride()  # type: ignore[return-value]

    last = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last).weight.stride()
    assert stride_of(torch.nn.Conv2d(16, 32, 1, stride=2)) == last
    assert stride_of(torch.nn.Conv2d(8, 32, 3, stride=2)) == last
    assert stride_of(torch.nn.Conv2d(8, 32, 1, stride=1)) == last
    assert stride_of(torch.nn.Conv2d(8, 32, 1, stride=2)) != last
    assert stride_of(torch.nn.Conv2d(64, 64, 1, stride=2, groups=8)) != last


@pytest.mark.parametrize(("own", "expected"), [(0.0, 0.3), (0.02, 0.02)])
def test_prototypes_have_their_own_learning_rate_where_it_is_set(own: float, expected: float) -> None:
    made = small_stages(small_config(Path("unused"), cpc={"lr": own}))[1][0]
    made.set_learning_rate(0.3)
    rates = [{group["lr"] for group in one.param_groups} for one in (made.optimizer, made.cpc_optimizer)]
    assert rates == [{0.3}, {expected}]


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_a_step_guesses_from_weak_views_and_trains_on_the_others(
    kind: str, num_views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weak views serve both in plain DivideMix. The rate of images counts the views that are trained on."""
    config = small_config(Path("unused"), semisup={"views": num_views, "batches_per_epoch": 1}, augment={"train": kind})
    training, (own, other) = small_stages(config)
    asked: list[str] = []
    batches, used, counted = [], [], []
    stream = training.loader.stream

    def watched(chosen: Any, views: Any, *rest: Any) -> Iterator[Batch]:
        asked.extend(views)
        for batch in stream(chosen, views, *rest):
            batches.append(batch)
            yield batch

    def recorded(network: Any, logits: Any, guess: Any, train: Any, *rest: Any) -> StepLosses:
        used.append((guess, train))
        return semisup_loss(network, logits, guess, train, *rest)

    class Counting(BareSteps):
        def train_steps(self, *arguments: Any, num_views: int) -> Iterator[tuple[int, Batch]]:
            counted.append(num_views)
            return super().train_steps(*arguments, num_views=num_views)

    monkeypatch.setattr(training.loader, "stream", watched)
    monkeypatch.setattr(train_epoch, "semisup_loss", recorded)
    semi_supervised(own, other, training, Counting(), epoch=2, start=0)  # type: ignore[arg-type]
    assert counted == [num_views]
    assert asked == ["weak"] * num_views + (["strong"] * num_views if kind == "strong" else [])
    guess, train = used[0]
    assert len(used) == 1 and len(guess) == len(train) == num_views
    for position in range(num_views):
        assert guess[position] is batches[0].views[position]
        assert train[position] is batches[0].views[len(asked) - num_views + position]
