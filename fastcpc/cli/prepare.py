"""fastcpc-prepare: the arguments. The work is in actions/prepare.py.

Exit codes: 0 the data set is complete, 1 images are broken, 2 wrong arguments.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import cast

from fastcpc.cli.arguments import positive
from fastcpc.cli.exit_codes import InputParser, report_error
from fastcpc.cli.lazy import load_action
from fastcpc.config.load import load_config
from fastcpc.config.names import DATASETS
from fastcpc.config.paths import check_data_paths
from fastcpc.config.schema import DataConfig
from fastcpc.config.sizes import BILINEAR, INTERPOLATIONS, RESIZE
from fastcpc.data.cores import usable_cores

PROGRAM = "fastcpc-prepare"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; argv: the arguments, None for the arguments of the process."""
    return report_error(PROGRAM, lambda: _command(_parser().parse_args(argv)))


def _command(options: argparse.Namespace) -> int:
    data = _settings(options)
    check_data_paths(data)
    return load_action("prepare")(options, data)


def _settings(options: argparse.Namespace) -> DataConfig:
    """The settings of the data set, checked as in a config, so that training reads the same data set."""
    given = {"name": options.name, "root": options.root, "list": options.list, "classes": options.classes,
             "test_root": options.test_root, "label_key": options.label_key, "image_key": options.image_key,
             "ilsvrc12": options.ilsvrc12, "num_classes": options.num_classes, "flickr": options.flickr,
             "holdout": options.holdout, "max_bad": options.max_bad, "resize": options.cache,
             "interpolation": options.interpolation}  # fmt: skip
    if options.cache and options.cache.isdigit():  # data.crop is not used here, but must not exceed data.resize
        given["crop"] = str(max(8, min(224, int(options.cache))))
    return load_config([], [f"data.{key}={value}" for key, value in given.items() if value not in (None, False)]).data


def _parser() -> argparse.ArgumentParser:
    parser = InputParser(
        prog=PROGRAM,
        description="Check a data set on disk: layout, counts and labels; decode every image. Write the index that "
        "training reads, and the list of broken images beside it.",
    )
    defaults = {field.name: cast(float, field.default) for field in dataclasses.fields(DataConfig)}
    parser.add_argument("name", metavar="NAME", choices=tuple(DATASETS), help=", ".join(DATASETS))
    own = "imagefolder, webdataset, parquet"
    parser.add_argument(
        "--root", metavar="DIR", default="",
        help="folder of the data set; webdataset and parquet: also a file or a quoted pattern (data.root)",
    )  # fmt: skip
    parser.add_argument("--list", metavar="FILE", help=f"{own}: csv, tsv, parquet or txt list (data.list)")
    parser.add_argument("--classes", metavar="FILE", help=f"{own}: file of the class names (data.classes)")
    parser.add_argument("--holdout", metavar="SHARE", help=f"{own}: data.holdout (default: {defaults['holdout']:g})")
    parser.add_argument(
        "--test-root", metavar="DIR", help="webdataset, parquet: files of the test part (data.test_root)"
    )
    parser.add_argument("--label-key", metavar="KEY", help="webdataset, parquet: where labels are (data.label_key)")
    parser.add_argument("--image-key", metavar="KEY", help="webdataset, parquet: where images are (data.image_key)")
    parser.add_argument(
        "--num-classes", metavar="K", help=f"webvision: the first K classes (default: {defaults['num_classes']})"
    )
    parser.add_argument("--flickr", action="store_true", help="webvision: also check the Flickr list (data.flickr)")
    parser.add_argument("--ilsvrc12", metavar="DIR", help="webvision: validation images of ILSVRC12 (data.ilsvrc12)")
    parser.add_argument(
        "--max-bad",
        metavar="SHARE",
        help=f"allowed share of broken training images, data.max_bad (default: {defaults['max_bad']:g})",
    )
    parser.add_argument(
        "--cache",
        metavar="SIDE",
        nargs="?",
        const=str(RESIZE),
        help="also write a cache of all images, SIDE pixels on the shorter side; training then decodes no image. "
        f"SIDE is data.resize of the config (default: {RESIZE}); 0.26 MB per image at 256",
    )
    parser.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        help=f"interpolation of the cache; data.interpolation of the run (default: {BILINEAR})",
    )
    parser.add_argument("--out", metavar="FILE", help="index file (default: DIR/.fastcpc-index/NAME.parquet)")
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=positive,
        default=usable_cores(),
        help="number of processes (default: one per core that this process may use)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
