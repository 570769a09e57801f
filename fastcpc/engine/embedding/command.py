"""The work that fastcpc-embed and fastcpc-audit share: embed a source with their options, and print the progress."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fastcpc import distributed
from fastcpc.engine.embedding.embed import BATCH_SIZES, EmbedSettings, decoder_threads, embed_source
from fastcpc.engine.embedding.source import Source
from fastcpc.engine.loggers.run_log import ConsoleHandler
from fastcpc.errors import InputError
from fastcpc.models.embeddings.extractor import build_extractor

TIMEOUT = 3600.0  # seconds; ranks that finish early wait for the others
logger = logging.getLogger("fastcpc")


def embed_with_options(source: Source, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Embed a source into a folder, with the options of ``add_embedding_options``; returns embed.json's content."""
    device = choose_device(options.device)
    distributed.connect(device, TIMEOUT)
    distributed.assert_equal_on_all_ranks("the images", source.digest().encode())
    for remark in source.remarks:
        logger.warning("%s", remark)
    extractor = distributed.raise_on_all_ranks(lambda: build_extractor(options.model, options.weights, options.size))
    logger.info(
        "%s images of %s classes with %s at %s pixels (%s), into %s",
        f"{len(source.names):,}", len(source.class_names), extractor.model, extractor.size, extractor.weights, folder,
    )  # fmt: skip
    batch_size = options.batch_size or BATCH_SIZES[device.type]
    settings = EmbedSettings(batch_size, decoder_threads(options.workers), options.max_bad, device)
    return embed_source(source, extractor, folder, settings)


def choose_device(name: str) -> torch.device:
    """The device that --device names. InputError for a GPU that is not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: torch finds no usable GPU here; use --device cpu")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", distributed.local_rank()) if distributed.has_group() else torch.device("cuda")


@contextmanager
def console() -> Iterator[None]:
    """Within the body the logger "fastcpc" prints, on rank 0."""
    handler = ConsoleHandler() if distributed.is_rank0() else logging.NullHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
