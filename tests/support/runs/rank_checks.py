"""Checks that several ranks together compute what one computes from all samples; not a test itself."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcpc import distributed
from fastcpc.cleaner.gmm import OVER_RANKS
from fastcpc.cleaner.prototype_sgd import SampleSets, sgd_epoch
from fastcpc.cleaner.prototypes import train_contrastive
from fastcpc.config.schema import CpcConfig
from fastcpc.distributed.gradient_sync import GradientSync
from fastcpc.errors import InputError, RunError
from fastcpc.kernels import fit_gmm
from fastcpc.kernels.gmm_em import fit_gmm_by_sums
from fastcpc.models.backbones.digits_cnn import DigitsCnn
from fastcpc.models.network import Network
from fastcpc.models.prototype_head import PrototypeHead
from fastcpc.models.sync_batchnorm import synchronise_batchnorm
from fastcpc.semisup.losses import prior_penalty
from fastcpc.semisup.mixup import find_partners

BATCH = 16


def whole_and_own(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The same random numbers on every rank, and this rank's rows of them."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values, values[distributed.own_slice(len(values))]


CHECKS = (
    "batchnorm", "batchnorm_in_a_network", "penalty", "partners", "gradients", "gathers", "prototypes", "mixtures",
    "agreements", "stops", "halves",
)  # fmt: skip


def check(name: str) -> None:
    """Run one of CHECKS, a function of this module."""
    assert name in CHECKS
    globals()[name]()


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def batchnorm() -> None:
    for shape in ((BATCH, 3), (BATCH, 3, 5, 4)):
        whole, own = whole_and_own(*shape)
        weight, own_weight = whole_and_own(*shape, seed=1)
        plain: Any = nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3)
        with torch.no_grad():
            plain.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        holder = nn.Sequential(type(plain)(3))
        holder[0].load_state_dict(plain.state_dict())
        synchronise_batchnorm(holder, torch.device("cpu"))
        whole = (5 + 3 * whole).requires_grad_()
        own = (5 + 3 * own).requires_grad_()
        expected = plain(whole)
        (expected.square() * weight).mean().backward()
        found = holder(own)
        (found.square() * own_weight).mean().backward()
        mine = distributed.own_slice(BATCH)
        close(found, expected[mine])
        close(own.grad / distributed.world_size(), whole.grad[mine])
        for mean, parameter in zip(plain.parameters(), holder.parameters(), strict=True):
            close(distributed.all_reduce_mean(parameter.grad, "test"), mean.grad)
        for name, value in plain.state_dict().items():
            close(holder[0].state_dict()[name], value)
        close(holder.eval()(own), plain.eval()(whole)[mine])


def small_network(seed: int = 5, normalise: bool = False) -> Network:
    torch.manual_seed(seed)
    backbone = DigitsCnn(1, 8, 16)
    return Network(backbone, 128, 10, PrototypeHead(128, 8, 10, "linear", normalise))


def batchnorm_in_a_network() -> None:
    """Forward, backward and the mean of gradients through a whole network, in small buckets."""
    images, own = whole_and_own(BATCH, 1, 8, 8)
    labels = torch.arange(BATCH) % 10
    one, many = small_network(), small_network()
    synchronise_batchnorm(many, torch.device("cpu"))
    mean = GradientSync(many.backbone_parameters(), bucket_bytes=2000)
    for _ in range(2):
        for network, batch, target in ((one, images, labels), (many, own, labels[distributed.own_slice(BATCH)])):
            network.zero_grad()
            nn.functional.cross_entropy(network(batch), target).backward()
        mean.finish()
        for a, b in zip(many.backbone_parameters(), one.backbone_parameters(), strict=True):
            close(a.grad, b.grad, 1e-5)


def penalty() -> None:
    whole, own = whole_and_own(BATCH, 7)
    whole, own = (4 * whole).requires_grad_(), (4 * own).requires_grad_()
    expected, found = prior_penalty(whole), prior_penalty(own)
    (3 * expected).backward()
    (3 * found).backward()
    close(found, expected)
    close(own.grad / distributed.world_size(), whole.grad[distributed.own_slice(BATCH)])


def partners() -> None:
    """Partners from other ranks equal the rows of the whole batch exactly, in either memory format."""
    for mixed_blocks in (2, 4):
        permutation = torch.randperm(4 * BATCH, generator=torch.Generator().manual_seed(mixed_blocks))
        views = [whole_and_own(BATCH, 3, 2, 2, seed=k) for k in range(4)]
        whole, own = torch.cat([view[0] for view in views]), torch.cat([view[1] for view in views])
        found = find_partners(permutation, 4, mixed_blocks * BATCH, torch.device("cpu"))
        mine = torch.cat([k * BATCH + distributed.own_slice(BATCH) for k in range(mixed_blocks)])
        assert torch.equal(found.fetch(own)(), whole[permutation[mine]])
        strided = own.to(memory_format=torch.channels_last)
        assert torch.equal(found.fetch(strided)(), whole[permutation[mine]])
        assert found.fetch(strided)().is_contiguous(memory_format=torch.channels_last)


def gradients() -> None:
    """Also where a parameter gets no gradient in a step."""
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    mean = GradientSync([used, unused], bucket_bytes=1)
    (used * (distributed.rank() + 1)).sum().backward()
    mean.finish()
    assert used.grad is not None and torch.equal(used.grad, torch.full((3,), (distributed.world_size() + 1) / 2))
    assert unused.grad is None


def gathers() -> None:
    """Every sample once, in its place, whatever the number of batches; more ranks than batches too."""
    for num_samples, batch_size in ((23, 4), (5, 4), (3, 4), (64, 4)):
        batches = list(torch.arange(num_samples).split(batch_size))
        own, shard, most = distributed.shard_batches(batches, num_samples)
        assert most == -(-len(batches) // distributed.world_size()) >= len(own)
        values = torch.stack([shard.rows.float(), -shard.rows.float()])
        expected = torch.stack([torch.arange(num_samples).float(), -torch.arange(num_samples).float()])
        assert torch.equal(shard.gather(values, "test"), expected)
        counts = torch.zeros(num_samples)
        counts[shard.rows] += 1
        assert torch.equal(distributed.all_reduce_sum(counts, "test"), torch.ones(num_samples))
    with pytest.raises(ValueError, match="do not hold each of 8 samples once"):
        distributed.shard_batches([torch.arange(4), torch.arange(4)], 8)


def prototypes() -> None:
    """Prototypes trained on features that stay on their ranks equal those of one rank: both heads, both objectives."""
    num_samples = 50
    draw = torch.Generator().manual_seed(7)
    feat = torch.randn(num_samples, 128, generator=draw)
    labels = torch.randint(10, (num_samples,), generator=draw)
    clean = torch.rand(num_samples, generator=draw) < 0.5
    pseudo = torch.where(clean, -1, torch.randint(-1, 10, (num_samples,), generator=draw))
    batches = [torch.randperm(num_samples, generator=draw)[:8] for _ in range(20)]
    _, shard, _ = distributed.shard_batches(list(torch.arange(num_samples).split(17)), num_samples)
    sets = SampleSets(labels, clean, pseudo, 0.7)
    for normalise in (False, True):
        one, many = small_network(normalise=normalise), small_network(normalise=normalise)
        for network, part, held in ((one, feat, distributed.whole_shard(num_samples)), (many, feat[shard.rows], shard)):
            optimizer = torch.optim.SGD(network.prototype_parameters(), lr=0.05, momentum=0.9)
            sgd_epoch(network, optimizer, part, sets, batches, held)
            train_contrastive(network, optimizer, part, labels, CpcConfig(passes=2), batch_size=8, seed=3, shard=held)
        for a, b in zip(many.prototype_parameters(), one.prototype_parameters(), strict=True):
            close(a, b, 2e-5)
        assert not torch.equal(one.prototypes, small_network(normalise=normalise).prototypes)


def agreements() -> None:
    """An error on one rank is raised on all; so is a difference between ranks."""
    last = distributed.world_size() - 1

    def only_on_last() -> int:
        if distributed.rank() == last:
            raise InputError("data.root is empty")
        return 3

    with pytest.raises(InputError, match=rf"^rank {last}: data\.root is empty$") as caught:
        distributed.raise_on_all_ranks(only_on_last)
    assert caught.value.on_all_ranks
    assert distributed.raise_on_all_ranks(lambda: distributed.rank()) == distributed.rank()

    def fail() -> None:
        assert distributed.is_rank0()
        raise RunError("cannot write")

    with pytest.raises(RunError, match=r"^cannot write$"):
        distributed.on_rank0(fail)
    assert distributed.on_rank0(lambda: "kept") == ("kept" if distributed.is_rank0() else None)
    files = {"a": b"\0\1", "b": b""} if distributed.is_rank0() else None
    assert distributed.broadcast_files(files) == {"a": b"\0\1", "b": b""}
    assert distributed.broadcast_files(None) is None
    distributed.assert_equal_on_all_ranks("this", torch.arange(3), b"x")
    with pytest.raises(RunError, match=rf"the processes disagree about that: rank {last} differs from rank 0"):
        distributed.assert_equal_on_all_ranks("that", torch.arange(3) + (distributed.rank() == last))


def stops() -> None:
    """All ranks see the request of one at the same, next step; the largest signal number of several counts."""
    signal, seen = distributed.StopSignal(), []
    for step in range(6):
        asked = {0: 0, 3: 15}.get(step, 0) if distributed.rank() == distributed.world_size() - 1 else 0
        seen.append(signal.agree(asked))
        if seen[-1]:
            break
    assert seen == [0, 0, 0, 0, 15]


def halves() -> None:
    """Sums, shares and gathers are of the own half of the ranks; agreements, files and stops are of all ranks."""
    number, count = distributed.rank(), distributed.world_size()
    distributed.connect_subgroups()
    share = count // 2
    assert distributed.subgroup_index() == number // share
    signal = distributed.StopSignal()
    with distributed.own_subgroup():
        assert (distributed.rank(), distributed.world_size()) == (number % share, share)
        assert distributed.is_rank0() == (number == 0)
        learners = range(distributed.subgroup_index() * share, (distributed.subgroup_index() + 1) * share)
        assert distributed.all_reduce_sum(torch.tensor([float(number)]), "test").item() == sum(learners)
        assert [int(part) for part in distributed.all_gather(torch.tensor([number]), "test")] == list(learners)
        assert distributed.all_reduce_max(number) == count - 1
        assert [signal.agree(15 if number == count - 1 else 0), signal.agree(0)] == [0, 15]
        with pytest.raises(RunError, match="rank 1 differs" if count == 2 else "rank 1, 2, 3 differs"):
            distributed.assert_equal_on_all_ranks("that", torch.tensor([number]))
    assert (distributed.rank(), distributed.world_size()) == (number, count)
    partner = (number + share) % count
    assert distributed.swap_between_subgroups(bytes([number] * (number + 1)), "test") == bytes(
        [partner] * (partner + 1)
    )
    distributed.connect(torch.device("cpu"), 60.0)  # as in a run without halves
    with distributed.own_subgroup():
        assert distributed.world_size() == count


def mixtures() -> None:
    """Mixtures from summed moments equal those of all values; a rank may have no sample of a class."""
    draw = np.random.default_rng(2)
    low, high = draw.normal(0.15, 0.05, 700), draw.normal(0.6, 0.15, 500)
    values = torch.from_numpy(draw.permutation(np.concatenate([low, high, np.full(20, 0.3), [0.1, 0.2]])))
    groups = torch.from_numpy(draw.integers(0, 4, len(values)))
    groups[values == 0.3] = 4  # constant: not fitted
    groups[-2:] = 5  # too few
    whole = fit_gmm(values, groups, 7)
    assert whole.fitted.tolist() == [True] * 4 + [False] * 3
    alone = groups == 3
    for holder in (
        torch.arange(len(values)) % distributed.world_size(),
        torch.where(alone, 0, torch.arange(len(values)) % distributed.world_size()),
    ):
        own = holder == distributed.rank()
        found = fit_gmm_by_sums(values[own], groups[own], 7, OVER_RANKS)
        assert torch.equal(found.n_iter, whole.n_iter) and torch.equal(found.converged, whole.converged)
        assert torch.equal(found.fitted, whole.fitted)
        for name in ("means", "variances", "weights", "lower_bound"):
            torch.testing.assert_close(
                getattr(found, name), getattr(whole, name), rtol=1e-10, atol=1e-12, equal_nan=True
            )
        probability = found.clean_probability(values[own], groups[own])
        expected = whole.clean_probability(values, groups)[own]
        torch.testing.assert_close(probability, expected, rtol=1e-9, atol=1e-12, equal_nan=True)
    nothing = fit_gmm_by_sums(values[:0], groups[:0], 7, OVER_RANKS)
    assert not nothing.fitted.any()
