"""fastcpc-audit: the arguments. The work is in actions/audit.py.

Exit codes: 0 done, 1 failed or too many unreadable images, 2 wrong arguments or files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcpc.cli.arguments import add_embedding_options, one_source
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.data_root import root_folder
from fastcpc.errors import InputError

PROGRAM = "fastcpc-audit"
AUDIT_FILE = "audit.npz"  # every audit's folder has it: --force replaces no other folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    if bool(options.source) == bool(options.embeddings):
        raise InputError("give SOURCE, or --embeddings FILE --labels FILE (see fastcpc-audit --help)")
    if options.embeddings and not options.labels:
        raise InputError("--labels is missing: --embeddings needs a label file, one label per row")
    if options.source and options.labels:
        raise InputError("--labels: is read only with --embeddings; SOURCE has its own labels")
    if bool(options.test_embeddings) != bool(options.test_labels):
        raise InputError("--test-embeddings and --test-labels belong together; give both or neither")
    options.source = one_source(options.source)
    for name in ("embeddings", "labels", "test_embeddings", "test_labels"):
        value = getattr(options, name)
        if value and not Path(value).expanduser().exists():
            raise InputError(f"{value}: no such folder or file")
    named = Path(options.source or options.embeddings).expanduser().resolve()
    named = named if named.exists() else root_folder(str(named))
    options.out = options.out or Path("runs") / f"audit-{named.name if named.is_dir() else named.stem}"
    _check_out(options.out, force=options.force)
    return load_action("audit")(options)


def _check_out(folder: Path, *, force: bool) -> None:
    """InputError where the folder holds anything but the start of an audit, or an audit that --force may replace."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file, not a folder")
    there = {item.name for item in folder.iterdir()} - {"embeddings"} if folder.is_dir() else set()
    if there and AUDIT_FILE not in there:
        raise InputError(f"--out {folder}: holds other files ({min(there)}); give a new or empty folder")
    if there and not force:
        raise InputError(f"--out {folder}: holds an audit already; give another folder, or --force to replace it")


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Find wrong labels with a frozen network, without training one: suspects.csv and report.html.",
    )
    parser.add_argument(
        "source", metavar="SOURCE", nargs="*",
        help="folder with a folder per class, a list of images (csv, tsv, parquet, txt), shards (.tar) or Parquet "
        "files with images, or a folder of fastcpc-embed",
    )  # fmt: skip
    parser.add_argument(
        "--embeddings", metavar="FILE", default="", help="instead of SOURCE: embeddings (N, D), .npy, .npz or .parquet"
    )
    parser.add_argument(
        "--labels", metavar="FILE", default="",
        help="given labels of --embeddings, one per row: a label file, or a table with the columns path and label",
    )  # fmt: skip
    parser.add_argument(
        "--root", metavar="DIR", default="", help="with --embeddings: folder of the images, for the report"
    )
    parser.add_argument("--test-embeddings", metavar="FILE", default="", help="embeddings of a test set")
    parser.add_argument("--test-labels", metavar="FILE", default="", help="labels of --test-embeddings")
    parser.add_argument("--out", metavar="RUN", type=Path, help="folder of the audit (default: runs/audit-NAME)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="seed of the heads (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace an earlier audit in RUN")
    add_embedding_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
