"""fastcpc-train: train a run, on one process or on those that torchrun started."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

import torch

from fastcpc import distributed
from fastcpc.config.load import to_yaml
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.preprocessing import with_weights_preprocessing
from fastcpc.engine.checkpoint.resume import turns_back
from fastcpc.engine.launch import dry_run, train
from fastcpc.engine.loggers.run_log import ConsoleHandler, result_text
from fastcpc.engine.numerics import leave_memory_unfilled, resolve_numerics
from fastcpc.engine.outputs.run_dir import RunDir, open_run_dir
from fastcpc.engine.step_loop import Stopped, StopRequest
from fastcpc.errors import RunError
from fastcpc.report.export.trial import export_problem
from fastcpc.report.html.training_figures import run_figures

Settings = Callable[[], tuple[argparse.Namespace, Config]]
logger = logging.getLogger("fastcpc")


def run(read: Settings) -> int:
    """Train, or do a dry run; returns the exit code. read: returns options and config; called on every rank."""
    leave_memory_unfilled()
    with distributed.joined_process_group():
        return distributed.recorded_error(lambda: _run(read))


def _run(read: Settings) -> int:
    options, config = distributed.raise_on_all_ranks(read)
    distributed.assert_equal_on_all_ranks("the settings", to_yaml(config).encode())
    if options.print_config:
        if distributed.is_rank0():
            sys.stdout.write(to_yaml(config))
        return 0
    handler = ConsoleHandler() if distributed.is_rank0() else logging.NullHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        if options.dry_run:
            return _dry_run(*with_weights_preprocessing(config))
        return _train(*with_weights_preprocessing(config), accept_changed_data=options.accept_changed_data)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _dry_run(config: Config, warnings: Sequence[str]) -> int:
    for warning in warnings:
        logger.warning("%s", warning)
    try:
        dry_run(config)
        note = export_problem(config)
        if note:
            logger.warning("dry run: %s", note)
    except Stopped as stopped:
        logger.warning("dry run %s; nothing is kept", stopped)
        return 128 + stopped.signum
    return 0


def _train(config: Config, warnings: Sequence[str], *, accept_changed_data: bool) -> int:
    with open_run_dir(config) as folder, StopRequest() as stop:
        for warning in warnings:
            logger.warning("%s", warning)
        back = turns_back(config.run.resume, folder.path)
        if not back and _is_finished(folder):
            return 0
        try:
            train(config, folder, stop, run_figures, accept_changed_data=accept_changed_data)
        except Stopped as stopped:
            again = "the same command again, with run.resume=auto," if back else "the same command again"
            logger.warning("%s: start %s to resume", stopped, again)
            return 128 + stopped.signum
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            score_batch = resolve_numerics(config).score_batch
            raise RunError(
                distributed.with_rank_prefix(
                    f"out of memory: lower train.score_batch_size (now {score_batch}), or start a "
                    f"new run (another run.dir) with a lower train.batch_size (now {config.train.batch_size})"
                )
            ) from error
    return 0


def _is_finished(folder: RunDir) -> bool:
    """Whether rank 0 finds a finished run; logs it."""

    def look() -> dict[str, bytes] | None:
        summary = folder.finished_summary()
        if summary is None:
            return None
        logger.info("%s is a finished run (%s): nothing to do", folder.path, result_text(summary))
        return {}

    return distributed.broadcast_files(distributed.on_rank0(look)) is not None


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError with this text.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator: can't allocate" in str(
        error
    )
