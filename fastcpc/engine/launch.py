"""From a config to a running trainer: the data loaded, the run resumed where it stood, what begins said in a line."""

import tempfile
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcpc import distributed
from fastcpc.config.names import DATASETS
from fastcpc.config.normalise import read_normalise
from fastcpc.config.schema import Config
from fastcpc.config.sizes import crop_of, interpolation_of, resize_of
from fastcpc.data.corrections.apply import apply_corrections, corrections_of
from fastcpc.data.dataset import Dataset
from fastcpc.data.identity import DataIdentity
from fastcpc.data.labels.noise import Labels, make_labels, take_subset
from fastcpc.data.loaders.factory import describe_loader
from fastcpc.data.registry import load_dataset
from fastcpc.distributed.batch_scaling import connect_groups, describe_ranks
from fastcpc.engine.checkpoint.changed_data import Change, StoredData, find_change, map_files
from fastcpc.engine.checkpoint.config_diff import check_same_samples
from fastcpc.engine.checkpoint.format import checked_state, parse, read_whole
from fastcpc.engine.checkpoint.resume import resume_point, turns_back
from fastcpc.engine.loggers.figure_schedule import DrawFigures
from fastcpc.engine.loggers.run_log import RunLog, open_log
from fastcpc.engine.numerics import choose_compile, resolve_numerics
from fastcpc.engine.outputs.corrections_file import write_applied
from fastcpc.engine.outputs.data_record import (
    DATA_FILE,
    check_old_labels,
    held_out_of,
    identity_of,
    not_checked,
    write_record,
)
from fastcpc.engine.outputs.labels_file import LABELS_FILE, write_labels
from fastcpc.engine.outputs.run_dir import RunDir, open_run_dir
from fastcpc.engine.step_loop import StopRequest
from fastcpc.engine.trainer import Trainer

ADAMW_LR = 5e-3  # learning rates above are for SGD


def load_data(config: Config, held_out: Set[str] | None = None) -> tuple[Dataset, Labels]:
    """The data set and its labels: noise put on, subset taken, corrections applied. held_out: as ``load_dataset``."""
    dataset = load_dataset(config.data, held_out)
    labels = make_labels(dataset, config.noise, config.run.seed)
    file = config.data.corrections
    corrections = corrections_of(file, dataset, labels) if file else ()
    dataset, labels = take_subset(dataset, labels, config.data.subset, config.run.seed)
    return apply_corrections(dataset, labels, corrections) if file else (dataset, labels)


def train(
    config: Config,
    folder: RunDir,
    stop: StopRequest,
    draw_figures: DrawFigures | None = None,
    *,
    accept_changed_data: bool = False,
) -> dict[str, Any]:
    """Start or resume the run of this folder and train it to its end; returns the summary.

    draw_figures: draws figures of a run's folder for TensorBoard and W&B, as often as log.figures_every says.
    accept_changed_data: resume also where samples have changed. Raises Stopped after a checkpoint when a stop is
    requested, InputError for other data than the run's, RunError when the run cannot continue.
    """
    connect_groups(config, resolve_numerics(config).device)
    with open_log(folder, config, draw_figures) as log:
        found = distributed.on_rank0(lambda: _files_to_resume(config, folder))
        checkpoint = found[0] if found else None
        files = distributed.broadcast_files(found[1] if found else None)
        stored = _stored_data(checkpoint, folder)
        trainer, change, identity = distributed.raise_on_all_ranks(
            lambda: _trainer(config, folder, stop, log, stored, checkpoint, accept=accept_changed_data)
        )
        distributed.assert_equal_on_all_ranks("the training labels", trainer.training.labels_N, trainer.test_labels)
        distributed.assert_equal_on_all_ranks("the data set", identity.digest.encode())
        if files is not None:
            distributed.raise_on_all_ranks(lambda: trainer.resume(checkpoint or folder.path, files, change))

        def open_files() -> None:
            if turns_back(config.run.resume, folder.path):
                folder.mark_unfinished()
            if change is not None:
                map_files(folder.path, stored, change)
            write_record(folder.path, identity)
            write_applied(folder.path, trainer.labels.corrections)
            log.start(trainer.run_state.epoch)
            log.info(describe_start(trainer, checkpoint))
            notes = [change.note()] if change is not None else []
            if checkpoint is not None and not stored.digest:
                notes.append(not_checked(checkpoint.parent.parent))
            for note in [*notes, *start_notes(trainer)]:
                log.warning(note)
            dataset = trainer.dataset
            write_labels(
                folder.path / LABELS_FILE,
                trainer.labels,
                dataset.train.source_index,
                dataset.class_names,
                dataset.class_ids,
            )

        distributed.on_rank0(open_files)
        return trainer.run()


def _files_to_resume(config: Config, folder: RunDir) -> tuple[Path, dict[str, bytes]] | None:
    checkpoint = resume_point(config.run.resume, folder.path)
    if checkpoint is None:
        return None
    files = read_whole(checkpoint)
    if not checkpoint.resolve().is_relative_to(folder.path.resolve()):
        # another run: changed settings explain changed data, so they are named first
        check_same_samples(checked_state(checkpoint, parse(checkpoint, files)[1])["config"], config, checkpoint)
    return checkpoint, files


def _stored_data(checkpoint: Path | None, folder: RunDir) -> StoredData:
    """The data set of the checkpoint that rank 0 resumes from, on all ranks."""
    found = distributed.on_rank0(lambda: None if checkpoint is None else StoredData.files(checkpoint))
    files = distributed.broadcast_files(found)
    return StoredData() if files is None else StoredData.read(files, folder.path / DATA_FILE)


def _trainer(
    config: Config,
    folder: RunDir,
    stop: StopRequest,
    log: RunLog,
    stored: StoredData,
    checkpoint: Path | None,
    *,
    accept: bool,
) -> tuple[Trainer, Change | None, DataIdentity]:
    """The trainer on the present data; InputError where it is not the checkpoint's."""
    dataset, labels = load_data(config, held_out_of(stored.identity))
    identity = identity_of(config, dataset, labels)
    change = find_change(stored, identity, config, folder.path, accept=accept)
    if checkpoint is not None and not stored.digest:
        check_old_labels(checkpoint.parent.parent, config, identity)
    return Trainer(config, dataset, labels, folder, stop, log, identity.digest), change, identity


def describe_start(trainer: Trainer, checkpoint: Path | None) -> str:
    """What is about to be trained, in a line."""
    config, labels = trainer.config, trainer.labels
    rate = "unknown" if labels.actual_rate is None else f"{100 * labels.actual_rate:.2f} %"
    parameters = sum(p.numel() for p in trainer.learners[0].network.parameters())
    loader = describe_loader(trainer.dataset, config.data, trainer.numerics.device)
    begin = f"resumed from {checkpoint}" if checkpoint else f"into {trainer.run_dir.path}"
    return (
        f"{config.data.name}: {len(labels.given)} training and {len(trainer.test_labels)} test images, "
        f"{trainer.dataset.num_classes} classes; noise {labels.kind} {labels.nominal_rate:g} (labels wrong: {rate}); "
        f"2 x {config.model.name} of {parameters:,} parameters; cleaner {config.cleaner.kind}; "
        f"loader {loader}; {_preprocessing_words(config)}"
        f"{trainer.numerics.device}, {str(trainer.numerics.dtype).removeprefix('torch.')}; "
        f"{describe_compile(config, trainer.numerics.device)}{describe_ranks(config)}; {begin}"
    )


def describe_compile(config: Config, device: torch.device) -> str:
    """How steps are compiled, and on a GPU the reason for what ``auto`` chose; empty for an uncompiled run."""
    how, why = choose_compile(config.compile, device)
    if config.compile == "auto" and device.type == "cuda":
        return f"compile {how} (auto: {why}), "
    return "" if how == "false" else f"compile {how}, "


def _preprocessing_words(config: Config) -> str:
    """With weights and image files, sizes and interpolation; mean and std where they are not those of the data set.

    Each has a separator after it.
    """
    words, data = "", config.data
    if config.model.weights and DATASETS[data.name].kind == "images":
        words = f"{crop_of(data)} of {resize_of(data)} pixels, {interpolation_of(data)}; "
    return words if read_normalise(data.normalise) is None else f"{words}mean and std {data.normalise}; "


def start_notes(trainer: Trainer) -> list[str]:
    """What is unusual about the labels and sizes of a run, a line each."""
    given_N, num_classes = trainer.labels.given, trainer.dataset.num_classes
    notes = []
    empty = np.flatnonzero(np.bincount(given_N, minlength=num_classes) == 0).tolist()
    if empty:
        notes.append(
            f"no training sample has the label {', '.join(map(str, empty[:10]))}: it can never be predicted well"
        )
    if trainer.config.optim.name == "adamw" and trainer.config.train.lr > ADAMW_LR:
        notes.append(
            f"train.lr={trainer.config.train.lr:g}: is large for optim.name=adamw, which needs about 1e-5 to 1e-3"
        )
    if len(given_N) < trainer.config.train.batch_size:
        notes.append(
            f"train.batch_size={trainer.config.train.batch_size} exceeds the {len(given_N)} training samples: each "
            "batch repeats some"
        )
    return notes


def dry_run(config: Config) -> None:
    """Take the config's own networks through a few steps of every stage on a few samples, in a folder that is thrown
    away.

    What it shows: the data set and its labels load, the networks fit the images and the memory, each stage works
    here. One warm-up epoch, one whose data the mixture divides and one that CPC divides; nothing of what is learnt
    means anything.
    """
    batch_size = config.train.batch_size
    dataset, labels = load_data(config)
    num_samples = min(max(batch_size, 2 * dataset.num_classes), len(labels.given))
    dataset, labels = take_subset(dataset, labels, num_samples, config.run.seed)
    tests = {name: split.take(np.arange(min(batch_size, len(split)))) for name, split in dataset.tests.items()}
    with tempfile.TemporaryDirectory(prefix="fastcpc-dry-run-") as folder:
        small = replace(
            config,
            run=replace(config.run, dir=str(Path(folder) / "run"), resume="auto", keep_every=0),
            train=replace(config.train, epochs=3, warmup_epochs=1, warmup_steps=0),
            cleaner=replace(config.cleaner, warmup=1 / 3, guard="none"),  # the guard may leave out MixMatch
            cpc=replace(config.cpc, passes=1),
            log=replace(config.log, wandb=""),
        )
        connect_groups(config, resolve_numerics(config).device)
        with open_run_dir(small) as run_folder, StopRequest() as stop, open_log(run_folder, small) as log:
            trainer = Trainer(small, replace(dataset, tests=tests), labels, run_folder, stop, log)
            log.info(f"dry run on {num_samples} images: {describe_start(trainer, None)}")
            trainer.run()
            log.info("dry run: every stage works; nothing is kept")
