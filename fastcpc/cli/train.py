"""fastcpc-train: from a config to a run; started by torchrun, the same run on several processes.

Exit codes: 0 done, 1 failed, 2 usage or config, 130 and 143 after SIGINT and SIGTERM.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fastcpc import distributed
from fastcpc.cli.exit_codes import InputParser, recorded_error, report_error
from fastcpc.config.describe import describe
from fastcpc.config.load import load_config, to_yaml
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.resume import turns_back
from fastcpc.engine.launch import dry_run, train
from fastcpc.engine.loggers.run_log import ConsoleHandler, result_text
from fastcpc.engine.outputs.run_dir import RunDir, open_run_dir
from fastcpc.engine.signals import Stopped, StopRequest
from fastcpc.errors import InputError, RunError
from fastcpc.report.html.tensorboard import run_pictures

PROGRAM = "fastcpc-train"
logger = logging.getLogger("fastcpc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the process's own."""
    return report_error(PROGRAM, lambda: _joined(argv))


def _joined(argv: Sequence[str] | None) -> int:
    with distributed.joined_process_group():
        return recorded_error(lambda: _command(argv))


def _command(argv: Sequence[str] | None) -> int:
    options, config = distributed.raise_on_all_ranks(lambda: _read(argv))
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
            return _dry_run(config)
        return _train(config)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _read(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    options = _parser().parse_intermixed_args(argv)
    if not (options.config or options.overrides or options.print_config):
        raise InputError(
            "give --config FILE (configs/ has them ready) or settings as key=value; --help lists all settings"
        )
    return options, load_config(options.config, options.overrides)


def _dry_run(config: Config) -> int:
    try:
        dry_run(config)
    except Stopped as stopped:
        logger.warning("dry run %s; nothing is kept", stopped)
        return 128 + stopped.signum
    return 0


def _train(config: Config) -> int:
    with open_run_dir(config) as folder, StopRequest() as stop:
        back = turns_back(config.run.resume, folder.path)
        if not back and _is_finished(folder):
            return 0
        try:
            train(config, folder, stop, run_pictures)
        except Stopped as stopped:
            again = "the same command again, with run.resume=auto," if back else "the same command again"
            logger.warning("%s: start %s to go on", stopped, again)
            return 128 + stopped.signum
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise RunError(
                distributed.with_rank_prefix(
                    f"out of memory: lower train.score_batch_size (now {config.train.score_batch_size}), or start a "
                    f"new run (another run.dir) with a lower train.batch_size (now {config.train.batch_size})"
                )
            ) from error
    return 0


def _is_finished(folder: RunDir) -> bool:
    """Whether rank 0 finds a finished run; it says so."""

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


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Train two networks on noisy labels. Settings: defaults < files in their order < key=value.",
        epilog=describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, action="append", default=[], help="YAML file; may be repeated"
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="a setting, such as train.epochs=30")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and exit")
    parser.add_argument("--dry-run", action="store_true", help="build data and networks, print their sizes and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
