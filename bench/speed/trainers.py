"""Trainers for benches at the start of a run, in a temporary folder, on given or made-up images."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from fastcpc.config.load import load_config
from fastcpc.config.schema import Config
from fastcpc.data.augment.policies import WeakPolicy
from fastcpc.data.dataset import ArraySplit, Dataset
from fastcpc.data.datasets.cifar_meta import CIFAR10
from fastcpc.data.labels.noise import Labels, make_labels
from fastcpc.engine.launch import load_data
from fastcpc.engine.loggers.run_log import RunLog
from fastcpc.engine.numerics import leave_memory_unfilled
from fastcpc.engine.outputs.run_dir import RunDir
from fastcpc.engine.step_loop import StopRequest
from fastcpc.engine.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def cifar_config(overrides: Sequence[str]) -> Config:
    """The paper's settings for CIFAR-10, with these changes."""
    return load_config([ROOT / "configs" / "base" / "cifar10.yaml"], list(overrides))


def made_up_cifar(num_train: int, num_test: int) -> Dataset:
    """Images of CIFAR's size and number of classes: a colour and a direction of stripes for each class, under noise.

    Work and memory are those of CIFAR. Accuracy has no meaning.
    """
    random = np.random.default_rng(0)

    def split(num: int, name: str) -> ArraySplit:
        labels = random.integers(0, CIFAR10.num_classes, num)
        place = np.linspace(0, 2 * np.pi, CIFAR10.image_size)
        angle = labels[:, None, None] * np.pi / CIFAR10.num_classes
        stripes = np.sin(4 * (np.cos(angle) * place[None, :, None] + np.sin(angle) * place[None, None, :]))
        tint = random.random((CIFAR10.num_classes, 3))[labels]
        clean = 110 + 60 * stripes[:, None] * tint[:, :, None, None]
        pixels = np.clip(clean + random.normal(0, 40, (num, 3, *stripes.shape[1:])), 0, 255).astype(np.uint8)
        return ArraySplit(torch.from_numpy(pixels), labels, np.arange(num), tuple(f"{name}/{i}" for i in range(num)))

    weak = WeakPolicy(flip=True, padding=4)
    splits = split(num_train, "train"), split(num_test, "test")
    return Dataset("cifar10", CIFAR10.class_names, splits[0], {"test": splits[1]}, CIFAR10.mean, CIFAR10.std, weak)


@contextmanager
def trainer_of(config: Config, dataset: Dataset | None = None) -> Iterator[Trainer]:
    """A trainer at the start of its run, as fastcpc-train has it. dataset: None loads what the config names."""
    leave_memory_unfilled()
    with ExitStack() as stack:
        data: tuple[Dataset, Labels]
        data = load_data(config) if dataset is None else (dataset, make_labels(dataset, config.noise, config.run.seed))
        folder = stack.enter_context(RunDir(config))
        log = stack.enter_context(RunLog(folder, config.train.epochs))
        yield Trainer(config, *data, folder, StopRequest(), log)  # not entered: Ctrl-C ends a bench at once


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for a run."""
    with tempfile.TemporaryDirectory(prefix="fastcpc-bench-") as folder:
        yield Path(folder) / "run"
