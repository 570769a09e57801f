"""fastcpc-train: the arguments and settings. The work is in actions/train.py.

Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 130 and 143 after SIGINT and SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.describe import describe
from fastcpc.config.load import load_config, run_folder, to_yaml
from fastcpc.config.packaged import list_text
from fastcpc.config.paths import check_paths
from fastcpc.config.schema import Config
from fastcpc.errors import InputError

PROGRAM = "fastcpc-train"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(argv))


def _command(argv: Sequence[str] | None) -> int:
    if _has_ranks():  # all ranks read together, so that only rank 0 reports an error
        return load_action("train")(lambda: _read(argv))
    options, config = _read(argv)
    if options.print_config:
        sys.stdout.write(to_yaml(config))
        return 0
    if options.dry_run or not run_folder(config).is_dir():  # a finished run needs no data any more
        check_paths(config)
    return load_action("train")(lambda: (options, config))


def _has_ranks() -> bool:
    """Whether torchrun started this process, or the environment says that there are several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("WORLD_SIZE", "") not in ("", "1")


def _read(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    options = _parser().parse_intermixed_args(argv)
    if not (options.config or options.overrides or options.print_config):
        raise InputError(
            "give --config FILE or settings as key=value; --list-configs lists configs, --help lists settings"
        )
    return options, load_config(options.config, options.overrides)


class ListConfigs(argparse.Action):
    """The option --list-configs: prints the packaged configs and exits, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Called by argparse where the option is given."""
        print(list_text())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Train two networks on noisy labels. Order of settings: defaults < files in order < key=value.",
        epilog=describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, action="append", default=[],
        help="YAML file, or the name of a packaged config; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="a setting, such as train.epochs=30; all are listed below"
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and exit")
    parser.add_argument("--list-configs", action=ListConfigs, nargs=0, help="list the packaged configs and exit")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="train a few steps of every stage in a temporary folder, print the sizes of data and networks, and exit",
    )  # fmt: skip
    parser.add_argument(
        "--accept-changed-data", action="store_true",
        help="resume although images or labels differ from those that the run began with: the state of images with the "
        "same path and label is kept, others start unscored",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
