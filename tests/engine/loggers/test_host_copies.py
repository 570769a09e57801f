"""Copies for the writer thread: on a pretended GPU they wait for nothing, and arrive when the thread waits."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_gpu import GPU, PretendGpu, pretended_gpu
from small_stages import CONFIG, small_stages

from fastcpc.cleaner.partition import co_divide
from fastcpc.distributed import whole_shard
from fastcpc.engine.checkpoint.format import Packed, pack, serialise
from fastcpc.engine.cleaning import Cleaning
from fastcpc.engine.launch import load_data
from fastcpc.engine.loggers.async_writer import AsyncWriter
from fastcpc.engine.loggers.host_copies import HostCopies, ReusedCopies
from fastcpc.engine.outputs.cleaning_record import CleaningRecord
from fastcpc.engine.scoring import SampleScores, ScoringResult
from fastcpc.kernels import MixtureFit


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    with pretended_gpu() as pretended:
        yield pretended


@pytest.mark.parametrize("kind", [HostCopies, ReusedCopies])
def test_copy_arrives_at_the_wait_and_ignores_later_changes(kind: type[HostCopies], gpu: PretendGpu) -> None:
    tensor, copies = torch.arange(6.0).view(2, 3).to(GPU), kind()
    with gpu.hot():
        copied = copies.of(tensor)
        tensor.zero_()
    assert copied.isnan().all()
    copies.wait()
    assert copied.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("kind", [HostCopies, ReusedCopies])
def test_copy_on_a_cpu_has_the_layout_and_values_of_now(kind: type[HostCopies]) -> None:
    copies, images = kind(), torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    part = images[:, :2]
    copied = [copies.of(images), copies.of(images, torch.contiguous_format), copies.of(part)]
    values = images.clone()
    images.zero_()
    assert copied[0].stride() == values.stride() and copied[1].is_contiguous()
    assert copied[0].equal(values) and copied[1].equal(values) and copied[2].equal(values[:, :2])
    assert copied[2].untyped_storage().nbytes() == 4 * copied[2].numel()


def test_memory_is_reused_where_the_form_is_the_same() -> None:
    copies, one, two = ReusedCopies(), torch.rand(4), torch.rand(2, 3)
    first = [copies.of(one), copies.of(two)]
    copies.restart()
    again = [copies.of(one + 1), copies.of(two)]
    assert [tensor.data_ptr() for tensor in again] == [tensor.data_ptr() for tensor in first]
    assert again[0].equal(one + 1)
    copies.restart()
    other = copies.of(two)
    assert other.data_ptr() != first[0].data_ptr() and other.equal(two)
    copies.restart()
    assert copies.of(two).data_ptr() == other.data_ptr()


def test_checkpoint_of_a_gpu_is_packed_without_a_wait(gpu: PretendGpu) -> None:
    packed, expected = packed_on("cuda", gpu.hot()), packed_on("cpu", nullcontext())
    assert serialise(packed, {}) == serialise(expected, {})


def packed_on(device: str, hot: Any) -> Packed:
    """A checkpoint of weights that are set to zero after it was packed."""
    draw, copies = torch.Generator().manual_seed(1), ReusedCopies()
    weights = torch.rand(3, 4, 2, 2, generator=draw).to(memory_format=torch.channels_last).to(device)
    state = {"members": [weights + 1, 2.5]}
    with hot:
        packed = pack(3, [{"weight": weights}], state, copies)
        weights.zero_()
    return packed


def test_results_of_a_cleaning_are_collected_without_a_wait(gpu: PretendGpu, tmp_path: Path) -> None:
    on_cpu, on_gpu = (recorded(device, gpu, tmp_path) for device in ("cpu", "cuda"))
    assert (
        list(on_cpu) == list(on_gpu) == ["epoch", *(key for key in on_cpu if key not in ("epoch", "images")), "images"]
    )
    assert on_cpu["auc_cpc"][0] > 0.5 and on_cpu == on_gpu
    for name in ("clean_probabilities.parquet", "scores_last.npz"):
        assert (tmp_path / "cpu" / name).read_bytes() == (tmp_path / "cuda" / name).read_bytes()


def recorded(device: str, gpu: PretendGpu, folder: Path) -> dict[str, Any]:
    """The record of an epoch whose made-up cleaning is written to folder/DEVICE; all tensors change before that."""
    (folder / device).mkdir()
    (dataset, labels), (_, learners) = load_data(CONFIG), small_stages(CONFIG)
    num_samples = len(labels.given)
    draw = torch.Generator().manual_seed(1)
    is_wrong = torch.from_numpy(labels.given != labels.known).float()
    floats = [(0.5 * torch.rand(num_samples, generator=draw) + 0.5 * is_wrong).to(device) for _ in range(5)]
    mixtures = [{name: mixture(groups, device) for name, groups in (("agn", 1), ("awr", 10))} for _ in "12"]
    given_N = torch.from_numpy(labels.given).to(device)
    features = [torch.rand(num_samples, learner.network.feature_dim, generator=draw).to(device) for learner in learners]
    each = [SampleScores(floats[i], given_N, floats[i], floats[i], features[i]) for i in (0, 1)]
    pair = SampleScores(floats[2], given_N, floats[2], floats[3], features[0][:0])
    for learner in learners:
        learner.network.to(device)
    probs = 1 - floats[3], 1 - floats[4]
    cleaning = Cleaning({"gmm": probs, "cpc": probs}, probs, co_divide(*probs, 0.5), mixtures)
    record, results = {"epoch": 2}, CleaningRecord(CONFIG, dataset, labels, folder / device)
    with AsyncWriter() as writer:
        begun = threading.Event()
        writer.begin(lambda: begun.wait(60))
        with gpu.hot() if device == "cuda" else nullcontext():
            scoring = ScoringResult(tuple(each), pair, whole_shard(num_samples))
            results.begin(results.collect(cleaning, scoring, learners, given_N, 2), writer, record)
            for tensor in [*floats, *probs, *(learner.network.prototypes.data for learner in learners)]:
                tensor.zero_()
        record["images"] = 1
        begun.set()
    results.add_metrics(record)
    results.add_metrics(record)
    return record


def mixture(groups: int, device: str) -> MixtureFit:
    parts = torch.rand(3, groups, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(groups)).to(device)
    counts = torch.from_numpy(np.ones(groups))
    return MixtureFit(*parts, counts, counts, counts > 0, counts > 0)
