"""The scoring pass and the evaluation by value, on a network whose answers are known."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_run import assert_same_run, run, small_config
from torch import Tensor, nn

from fastcpc import distributed
from fastcpc.config.schema import Config, DataConfig, TrainConfig
from fastcpc.data.loaders.base import Batch
from fastcpc.engine import scoring as engine_collect
from fastcpc.engine.evaluate import evaluate, hits
from fastcpc.engine.numerics import DTYPES, Numerics, choose_score_batch
from fastcpc.engine.outputs.pred_probs import write_pred_probs
from fastcpc.engine.scoring import features_device, predict_batch, score_samples
from fastcpc.models.network import Network
from fastcpc.models.prototype_head import PrototypeHead

NUMERICS = Numerics(torch.device("cpu"), torch.float32)


class Flat(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def network(seed: int, num_classes: int = 7) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(Flat(), 12, num_classes, PrototypeHead(12, 6, num_classes, "linear", False))


def batches(images: Tensor, order: Tensor, size: int) -> Iterator[Batch]:
    for index in order.split(size):
        yield Batch(index, (images[index],))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(23, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def test_scores_are_stored_by_sample_index(images: Tensor) -> None:
    labels = torch.arange(23) % 7
    networks = [network(1), network(2)]
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    found = score_samples(networks, batches(images, order, 5), labels, NUMERICS)
    probs = []
    for net, scores in zip(networks, found.networks, strict=True):
        assert not net.training
        feat = images.flatten(1)
        logits = net.classifier(feat).detach()
        prob = logits.double().softmax(1)
        probs.append(prob)
        torch.testing.assert_close(
            scores.loss_N.double(), F.cross_entropy(logits.double(), labels, reduction="none"), atol=1e-6, rtol=1e-6
        )
        torch.testing.assert_close(scores.prob_given_N.double(), prob[torch.arange(23), labels], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(scores.prob_predicted_N.double(), prob.max(1).values, atol=1e-6, rtol=1e-6)
        assert torch.equal(scores.predicted_N, logits.argmax(1))
        assert torch.equal(scores.feat_ND, feat)
    mean = (probs[0] + probs[1]) / 2
    assert torch.equal(found.pair.predicted_N, mean.argmax(1))
    torch.testing.assert_close(found.pair.prob_given_N.double(), mean[torch.arange(23), labels], atol=1e-6, rtol=1e-6)


def test_sample_missing_in_all_batches_is_an_error(images: Tensor) -> None:
    labels = torch.arange(23) % 7
    found = score_samples([network(1), network(2)], batches(images, torch.arange(22), 5), labels, NUMERICS)
    assert found.networks[0].loss_N.isnan().tolist() == [False] * 22 + [True]


def test_losses_of_large_logits_are_finite(images: Tensor) -> None:
    net = network(1)
    with torch.no_grad():
        net.classifier.weight.mul_(1e4)
    found = score_samples([net, net], batches(images, torch.arange(23), 23), torch.arange(23) % 7, NUMERICS)
    assert found.networks[0].loss_N.isfinite().all()


def test_hits_by_value() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.2, 0.5, 0.4, 0.0]] * 3)  # ranked 1 4 5 2 3 0 6
    assert hits(scores, torch.tensor([1, 3, 0])).tolist() == [1, 2]
    assert hits(scores[:, :3], torch.tensor([1, 2, 0])).tolist() == [1, 3]  # fewer than five classes


@pytest.mark.parametrize("cosine", [False, True])
def test_evaluate_counts_ensemble_networks_and_prototypes(images: Tensor, cosine: bool) -> None:
    labels = torch.arange(23) % 7
    networks = [network(1), network(2)]
    found = evaluate(networks, batches(images, torch.arange(23), 6), labels, NUMERICS, cosine=cosine)
    feat = images.flatten(1).double()
    logits, similarities = [], []
    for net in networks:
        double = net.double()
        logits.append(double.classifier(feat))
        v, c = double.embed(feat), double.prototype_matrix()
        similarities.append(F.normalize(v, dim=1) @ F.normalize(c, dim=1).T if cosine else v @ c.T)

    def top1(scores: Tensor) -> float:
        return 100 * float((scores.argmax(1) == labels).double().mean())

    assert found.top1 == pytest.approx(top1(logits[0] + logits[1]))
    assert found.network_top1 == pytest.approx((top1(logits[0]), top1(logits[1])))
    assert found.prototype_top1 == pytest.approx(top1(similarities[0] + similarities[1]))
    in_five = ((logits[0] + logits[1]).topk(5).indices == labels[:, None]).any(1).double().mean()
    assert found.top5 == pytest.approx(100 * float(in_five))
    assert found.num_samples == 23


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_are_float32_products_of_the_features(precision: str, tmp_path: Path) -> None:
    """Close large logits would be equal in bfloat16, whose steps at 100 are 0.5."""
    dtype = DTYPES[precision]
    numerics, net = Numerics(torch.device("cpu"), dtype), network(3).eval()
    with torch.no_grad():
        net.classifier.weight.mul_(1e-2)
        net.classifier.bias.copy_(100 + 1e-3 * torch.arange(7.0))
    images = torch.randn(40, 3, 2, 2, generator=torch.Generator().manual_seed(4)).to(dtype)
    feat, logits = predict_batch(net, images, numerics)
    assert feat.dtype == dtype and torch.equal(feat, images.flatten(1)) and logits.dtype == torch.float32
    assert torch.equal(logits, F.linear(feat.float(), net.classifier.weight, net.classifier.bias))
    assert all(len(row.unique()) == 7 for row in logits)
    found = score_samples([net, net], batches(images, torch.arange(40), 40), torch.arange(40) % 7, numerics)
    assert torch.equal(found.networks[0].predicted_N, logits.argmax(1))
    write_pred_probs(tmp_path / "probs.npy", [net, net], found, numerics, 40)
    assert np.array_equal(np.load(tmp_path / "probs.npy"), logits.softmax(1).numpy())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net.classifier(feat)
    assert all(len(row.unique()) < 7 for row in rounded)


@pytest.mark.parametrize(
    ("device", "asked", "data", "ranks", "gigabytes", "size"),
    [("cpu", 0, "cifar10", 1, 0, 512), ("cuda", 0, "cifar10", 1, 17.1, 2048), ("cuda", 0, "digits", 1, 80, 2048),
     ("cuda", 0, "cifar10", 1, 12, 512), ("cuda", 0, "cifar100", 2, 80, 512), ("cuda", 0, "imagefolder", 1, 80, 512),
     ("cuda", 512, "cifar10", 1, 80, 512), ("cpu", 100, "cifar10", 1, 0, 100)],
)  # fmt: skip
def test_score_batch_size(
    device: str, asked: int, data: Any, ranks: int, gigabytes: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "has_group", lambda: ranks > 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, int(gigabytes * 1e9)))
    config = Config(data=DataConfig(name=data, root="unused"), train=TrainConfig(score_batch_size=asked))
    assert choose_score_batch(config, torch.device(device)) == size


def test_features_stay_in_main_memory_when_the_gpu_is_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8_000_000_000, 24_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3_000_000_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1_000_000_000)
    with caplog.at_level(logging.INFO, "fastcpc"):
        assert features_device(3_000_000_000, gpu) == gpu and not caplog.text
        assert features_device(3_000_000_001, gpu) == torch.device("cpu")
    assert "features of the scoring pass (3.0 GB) are kept in main memory: the GPU has 10.0 GB free" in caplog.text
    assert features_device(10**15, torch.device("cpu")) == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["cpc_awr", "cpc_only"])
def test_run_with_features_in_main_memory_is_bit_identical(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"device": "cuda", "precision": "fp32"}
    for name, share in (("on_device", 1.0), ("in_main_memory", 0.0)):
        monkeypatch.setattr(engine_collect, "FEATURES_SHARE", share)
        run(replace(small_config(tmp_path / name, kind, run={"deterministic": True}), **changes))  # type: ignore[arg-type]
    assert_same_run(tmp_path / "on_device", tmp_path / "in_main_memory")
