"""fastcpc-embed: embed the images of a folder or a list, on one process or on those that torchrun started."""

import argparse
import logging

from fastcpc import distributed
from fastcpc.engine.embedding.command import console, embed_with_options
from fastcpc.engine.embedding.source import list_source

logger = logging.getLogger("fastcpc")


def run(options: argparse.Namespace) -> int:
    """Embed and say where; returns the exit code. options: of ``fastcpc.cli.embeddings.embed``."""
    with distributed.joined_process_group(), console():
        return distributed.recorded_error(lambda: embed_command(options))


def embed_command(options: argparse.Namespace) -> int:
    """The command on the ranks that have met; returns the exit code."""
    source = distributed.raise_on_all_ranks(lambda: list_source(options.source, options.label_key, options.image_key))
    record = embed_with_options(source, options.out, options)
    logger.info(
        "%s: %s embeddings of %s dimensions, %s unreadable images left out (%s images/s)",
        options.out, f"{record['num_images']:,}", record["dim"], record["num_unreadable"], record["images_per_second"],
    )  # fmt: skip
    logger.info("next: fastcpc-audit %s, or fastcpc-train --config embeddings data.embeddings=%s", *[options.out] * 2)
    return 0
