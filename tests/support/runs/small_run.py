"""A run of a few seconds through every stage, for the tests of whole runs; not a test itself."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastcpc.config.schema import (
    AugmentConfig,
    CleanerConfig,
    Config,
    CpcConfig,
    ModelConfig,
    NoiseConfig,
    RunConfig,
    SemisupConfig,
    TrainConfig,
)
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.launch import train
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.engine.outputs.score_file import FIRST, LAST
from fastcpc.engine.step_loop import StopRequest

TIMES = ("seconds", "images_per_second", "data_wait")


class StopAfter(StopRequest):
    """Asks for a stop when it has been looked at a number of times: a signal that comes at a step one can choose."""

    def __init__(self, looks: int = -1) -> None:
        self.looks = 0
        self.stop_at = looks

    @property
    def requested(self) -> int:  # type: ignore[override]
        self.looks += 1
        return 15 if 0 < self.stop_at <= self.looks else 0


def small_config(folder: Path, kind: str = "cpc_awr", **sections: Any) -> Config:
    """Digits, 240 samples, 4 epochs: one of warm-up, one that the mixture divides, two that CPC divides."""
    config = Config(
        run=RunConfig(dir=str(folder), seed=3),
        noise=NoiseConfig(kind="sym", rate=0.4),
        model=ModelConfig(name="digits_cnn", width=16),
        augment=AugmentConfig(strong="geometric", randaugment_magnitude=5),
        cleaner=CleanerConfig(kind=kind, warmup=0.25),
        cpc=CpcConfig(passes=2, embedding_dim=16),
        semisup=SemisupConfig(rampup_epochs=2),
        train=TrainConfig(epochs=4, warmup_epochs=1, batch_size=32, lr_drop_epoch=3, score_batch_size=100),
        compile="false",  # also on a GPU, where auto compiles for longer than the run takes
        precision="fp32",  # also on CPUs where auto is bf16: the tests' tolerances are those of fp32
    )
    config = replace(config, data=replace(config.data, subset=240))
    for name, changes in sections.items():
        config = replace(config, **{name: replace(getattr(config, name), **changes)})
    return config


def run(config: Config, stop: StopRequest | None = None) -> dict[str, Any]:
    """Train as the command does, in this process."""
    with RunDir(config) as folder:
        return train(config, folder, stop or StopAfter())


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def weights(folder: Path) -> list[dict[str, torch.Tensor]]:
    """The networks of the last checkpoint."""
    return load(find_checkpoint(folder, "latest"))[0]


def assert_same_run(one: Path, two: Path, *, one_world: bool = True) -> None:
    """Two runs whose results are bit-identical; one_world: on as many ranks."""
    assert metrics(one) == metrics(two)
    assert_same_weights(weights(one), weights(two))
    for name in ("clean_probabilities.parquet", "pred_probs.npy", FIRST, LAST):
        assert (one / name).exists() == (two / name).exists(), name
        if (one / name).exists():  # pools that are scored alone leave no scores of the first cleaning
            assert (one / name).read_bytes() == (two / name).read_bytes(), name
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (one, two)]
    for summary in summaries:
        del summary["seconds"]
        if not one_world:
            del summary["world_size"]
    assert summaries[0] == summaries[1]


def assert_same_weights(one: Sequence[dict[str, torch.Tensor]], two: Sequence[dict[str, torch.Tensor]]) -> None:
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        different = [name for name in a if not torch.equal(a[name], b[name])]
        assert not different, f"differ: {different}"
