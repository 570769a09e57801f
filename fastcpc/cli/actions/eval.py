"""fastcpc-eval: the accuracy of a run's networks on one split of its data."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcpc.cleaner.registry import prototype_similarity
from fastcpc.config.load import read_config
from fastcpc.config.schema import Config
from fastcpc.data.dataset import AnySplit, Dataset
from fastcpc.data.identity import TRAIN, identify
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.registry import load_dataset
from fastcpc.data.sampler import sequential_batches
from fastcpc.engine.checkpoint.format import load
from fastcpc.engine.checkpoint.resume import find_checkpoint
from fastcpc.engine.evaluate import Accuracy, evaluate
from fastcpc.engine.launch import load_data
from fastcpc.engine.numerics import Numerics, resolve_numerics
from fastcpc.engine.outputs.corrections_file import with_applied
from fastcpc.engine.outputs.data_record import held_out_of, identity_of, read_record, require_same
from fastcpc.engine.outputs.run_dir import write_json
from fastcpc.errors import InputError
from fastcpc.models.network import Network
from fastcpc.report.results.networks import load_networks


def run(options: argparse.Namespace) -> int:
    """Measure, print and write the accuracies; returns the exit code. options: of ``fastcpc.cli.eval``."""
    config = dataclasses.replace(
        with_applied(read_config(options.run), options.run), device=options.device, compile="false"
    )
    if config.precision == "fp16" and (options.device == "cpu" or not torch.cuda.is_available()):
        config = dataclasses.replace(config, precision="fp32")  # a run from a GPU, evaluated on a CPU
    checkpoint = find_checkpoint(options.run, options.checkpoint)
    numerics = resolve_numerics(config)
    dataset, split = choose_split(config, options.split, options.run)
    networks = load_networks(
        config, checkpoint, num_classes=dataset.num_classes, in_channels=dataset.in_channels,
        image_size=dataset.image_size,
    )  # fmt: skip
    for network in networks:
        numerics.prepare(network)
    accuracy = measure(config, networks, dataset, split, numerics, options.out.parent / "bad_images_eval.txt")
    rows = as_dict(accuracy, prototypes=has_prototypes(config, checkpoint))
    content = {"run": str(options.run), "split": options.split, "checkpoint": checkpoint.name, **rows}
    print(table(options.run, options.split, checkpoint.name, content))
    write_json(options.out, content)
    print(f"written to {options.out}")
    return 0


def has_prototypes(config: Config, checkpoint: Path) -> bool:
    """Whether the prototypes of the checkpoint are trained: with cpc_*, after the warm-up."""
    position = load(checkpoint)[1]["position"]
    cleaned = position["epoch"] > config.train.warmup_epochs or (
        position["epoch"] == config.train.warmup_epochs and position["stage"] > 0
    )
    return prototype_similarity(config.cleaner.kind) is not None and bool(cleaned)


def choose_split(config: Config, name: str, run: Path) -> tuple[Dataset, AnySplit]:
    """The data set of the run and one split of it with true labels; InputError lists the existing splits.

    name: "train" is the training set of the run (its subset) with its true labels, where they are known; other names
    are test sets. InputError where the classes or the split are not those that the run began with.
    """
    held_out = held_out_of(read_record(run))
    if name != TRAIN:
        dataset = load_dataset(config.data, held_out)
        if name not in dataset.tests:
            raise InputError(f"--split {name}: {dataset.name} has {', '.join([TRAIN, *dataset.tests])}")
        require_same(run, config, identify(dataset, dataset.train.labels, config.data.root), {name})
        return dataset, dataset.tests[name]
    dataset, labels = load_data(config, held_out)
    require_same(run, config, identity_of(config, dataset, labels), {TRAIN})
    if labels.known is None:
        raise InputError(f"--split train: {dataset.name} has no true labels of training images to compare with")
    train = dataclasses.replace(dataset.train, labels=labels.known)
    if labels.partly is not None:
        train = train.take(np.flatnonzero(labels.partly >= 0))
        dataset = dataclasses.replace(dataset, train=train)
    return dataset, train


def measure(
    config: Config, networks: Sequence[Network], dataset: Dataset, split: AnySplit, numerics: Numerics, bad_list: Path
) -> Accuracy:
    """Accuracy on a split, in evaluation mode. bad_list: file for the names of images that cannot be read."""
    loader = make_loader(split, dataset, config.data, config.augment, numerics.device, bad_list)
    stream = loader.stream(sequential_batches(loader.num_samples, numerics.score_batch), ("test",), 0)
    labels_N: Tensor = torch.from_numpy(split.labels).to(numerics.device)
    return evaluate(networks, stream, labels_N, numerics, cosine=prototype_similarity(config.cleaner.kind) == "cosine")


def as_dict(accuracy: Accuracy, *, prototypes: bool) -> dict[str, Any]:
    """An accuracy as the JSON file has it: percent per classifier. prototypes: whether to include the prototypes."""
    rows = {"ensemble": {"top1": accuracy.top1, "top5": accuracy.top5}}
    for number, (top1, top5) in enumerate(zip(accuracy.network_top1, accuracy.network_top5, strict=True), start=1):
        rows[f"net{number}"] = {"top1": top1, "top5": top5}
    if prototypes:
        rows["prototypes"] = {"top1": accuracy.prototype_top1, "top5": accuracy.prototype_top5}
    return {"num_samples": accuracy.num_samples, **rows}


def table(run: Path, split: str, checkpoint: str, content: dict[str, Any]) -> str:
    """The accuracies as a table to print."""
    lines = [f"{run}, {checkpoint}, {split}: {content['num_samples']} images", f"{'':<12}{'top-1':>8}{'top-5':>8}"]
    for name, row in content.items():
        if isinstance(row, dict):
            lines.append(f"{name:<12}{row['top1']:>8.2f}{row['top5']:>8.2f}")
    return "\n".join(lines)
