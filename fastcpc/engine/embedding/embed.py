"""Embeds all images of a source with a frozen network, on one or several ranks, and resumes after a kill."""

import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastcpc
from fastcpc import distributed
from fastcpc.data.cores import usable_cores
from fastcpc.data.embeddings.record import EMBED_FILE
from fastcpc.data.image_files import BadImage, decode_image
from fastcpc.engine.embedding.frozen_network import Embed, ready_network
from fastcpc.engine.embedding.progress import Progress
from fastcpc.engine.embedding.source import Source
from fastcpc.engine.embedding.store import DONE, TODO, UNREADABLE, EmbeddingStore, read_bad, too_many
from fastcpc.engine.numerics import DTYPES, choose_precision, probe
from fastcpc.errors import RunError
from fastcpc.models.embeddings.extractor import Extractor

logger = logging.getLogger("fastcpc")
AHEAD = 2  # batches per thread that are read ahead
# Images per pass. On a CPU, larger passes need new memory for each layer: 4 take 26 ms per image, 32 take 48 ms.
BATCH_SIZES = {"cpu": 4, "cuda": 64}
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class EmbedSettings:
    """batch_size: images per pass, 1 or more. workers: threads that decode, and on a CPU embed. max_bad: largest share
    of unreadable images that are left out."""

    batch_size: int
    workers: int
    max_bad: float
    device: torch.device


def embed_source(source: Source, extractor: Extractor, folder: Path, settings: EmbedSettings) -> dict[str, Any]:
    """Write embeddings.npy, index.parquet and embed.json into the folder; returns the content of embed.json.

    Every rank must call. InputError and RunError as ``EmbeddingStore``; RunError for too many unreadable images.
    """
    precision = choose_precision("auto", probe(settings.device))
    threads = torch.get_num_threads()
    if settings.device.type == "cpu":
        torch.set_num_threads(1)  # per batch; batches run in parallel
    network = ready_network(extractor, settings.batch_size, settings.device, DTYPES[precision])
    num_columns = len(network(torch.zeros(1, 3, extractor.size, extractor.size, dtype=torch.uint8))[0])
    store = EmbeddingStore(folder, len(source.names), num_columns)
    job = {
        "model": extractor.model,
        "weights_sha256": extractor.digest,
        "preprocessing": extractor.preprocessing,
        "images_sha256": source.digest(),
        "precision": precision,
        "batch_size": settings.batch_size,
    }
    try:
        if (
            distributed.broadcast_files(distributed.on_rank0(lambda: {} if store.prepare(job, source) else None))
            is not None
        ):
            return _record_of(folder)
        distributed.raise_on_all_ranks(store.open)
        start, begun = time.perf_counter(), int((store.states() == TODO).sum())
        distributed.raise_on_all_ranks(lambda: _embed_share(source, extractor, network, store, settings))
        seconds = time.perf_counter() - start
        record = _record(source, extractor, settings, job, seconds, begun / max(seconds, 1e-9))
        distributed.on_rank0(lambda: _finish(source, store, settings, record))
    finally:
        store.close()
        torch.set_num_threads(threads)
    return _record_of(folder)


def _record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / EMBED_FILE).read_bytes())
    return content


def _embed_share(
    source: Source, extractor: Extractor, network: Embed, store: EmbeddingStore, settings: EmbedSettings
) -> bool:
    """Embed this rank's batches that are not done. Batches are those of one rank, so that ranks do not matter."""
    size, num_rows = settings.batch_size, len(source.names)
    num_batches = -(-num_rows // size)
    rank, ranks = distributed.rank(), distributed.world_size()
    own = range(rank * num_batches // ranks, (rank + 1) * num_batches // ranks)
    states = store.states()
    todo = [range(k * size, min((k + 1) * size, num_rows)) for k in own]
    todo = [rows for rows in todo if (states[rows.start : rows.stop] == TODO).any()]
    num_bad = int((states == UNREADABLE).sum())
    progress = Progress(store, num_rows)
    try:
        for rows, values, problems in _batches(source, extractor, network, todo, settings):
            marks = np.full(len(rows), DONE, np.uint8)
            for place, problem in problems.items():
                marks[place] = UNREADABLE
                store.note_bad(source.names[rows[place]], problem)
                logger.warning("%s cannot be read (%s); it is left out", source.names[rows[place]], problem)
            num_bad += len(problems)
            if num_bad > settings.max_bad * num_rows:
                raise too_many(num_bad, num_rows, settings.max_bad, list(read_bad(store.folder).items()), store.folder)
            store.write(rows.start, _to_half(values, source, rows), marks)
            progress.step()
    finally:
        store.sync()
        progress.close()
    return True


def _batches(
    source: Source, extractor: Extractor, network: Embed, batches: Sequence[range], settings: EmbedSettings
) -> Iterator[tuple[range, Tensor, dict[int, str]]]:
    """Embeddings float32 (b, D) of each batch in order, and the problem of each unreadable image by its position.

    On a CPU, each thread takes a batch from its files to its embeddings on one core: threads that share a layer wait
    for each other. On a GPU, the threads decode.
    """
    on_cpu = settings.device.type == "cpu"

    def work(rows: range) -> tuple[Tensor, dict[int, str]]:
        pixels, problems = _decode(source, extractor, rows)
        return network(pixels) if on_cpu else pixels, problems

    waiting: deque[tuple[range, Future[tuple[Tensor, dict[int, str]]]]] = deque()
    todo = iter(batches)
    pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="embed")
    try:
        while True:
            while len(waiting) < AHEAD * settings.workers and (rows := next(todo, None)) is not None:
                waiting.append((rows, pool.submit(work, rows)))
            if not waiting:
                return
            rows, future = waiting.popleft()
            result, problems = future.result()
            yield rows, result if on_cpu else network(result), problems
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(source: Source, extractor: Extractor, rows: range) -> tuple[Tensor, dict[int, str]]:
    """Pixels uint8 (b, 3, S, S), black for unreadable images, and the problems of these by position."""
    pixels = torch.zeros(len(rows), 3, extractor.size, extractor.size, dtype=torch.uint8)
    problems = {}
    for place, row in enumerate(rows):
        try:
            pixels[place] = extractor.transform(decode_image(source.images.read(row)))
        except BadImage as problem:
            problems[place] = str(problem)
    return pixels, problems


def _to_half(values: Tensor, source: Source, rows: range) -> NDArray[np.float16]:
    """Embeddings as float16. RunError where the network gives NaN, inf, or more than float16 can hold."""
    bad = torch.nonzero(~(values.abs() <= FLOAT16_MAX).all(1)).flatten()
    if len(bad):
        name = source.names[rows[int(bad[0])]]
        raise RunError(
            f"{name}: its embedding has values that are NaN, inf or above {FLOAT16_MAX:g}; use other weights"
        )
    return values.numpy().astype(np.float16)


def _record(
    source: Source, extractor: Extractor, settings: EmbedSettings, job: dict[str, Any], seconds: float, rate: float
) -> dict[str, Any]:
    """The content of embed.json, without the number of images."""
    return {
        **job,
        "weights": extractor.weights,
        "root": str(source.root),
        **({"image_key": source.image_key} if source.image_key else {}),
        "classes": list(source.class_names),
        "seconds": round(seconds, 3),
        "images_per_second": round(rate, 2),
        "device": settings.device.type,
        "world_size": distributed.world_size(),
        "version": fastcpc.__version__,
    }


def _finish(source: Source, store: EmbeddingStore, settings: EmbedSettings, record: dict[str, Any]) -> None:
    states = store.states()
    kept = np.flatnonzero(states == DONE)
    bad = read_bad(store.folder)
    num_bad = len(states) - len(kept)
    if num_bad > settings.max_bad * len(states):
        raise too_many(num_bad, len(states), settings.max_bad, list(bad.items()), store.folder)
    if not len(kept):
        raise RunError(f"{source.root}: no image can be read")
    labels = source.labels[kept]
    columns = {
        "index": pa.array(np.arange(len(kept))),
        "path": pa.array([source.names[row] for row in kept.tolist()], pa.string()),
        "label": pa.array(labels),
        "class": pa.array([source.class_names[label] for label in labels.tolist()], pa.string()),
        "split": pa.array([source.splits[row] for row in kept.tolist()], pa.string()),
    }
    if source.trusted is not None:
        known = [None if label < 0 else label for label in source.trusted[kept].tolist()]
        columns["trusted_label"] = pa.array(known, pa.int64())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    whole = {**record, "num_images": len(kept), "num_unreadable": num_bad, "dim": store.num_columns}
    store.finish(sink.getvalue().to_pybytes(), whole)


def decoder_threads(asked: int) -> int:
    """Number of decoder threads: as asked, or one per core of this process, at most 16."""
    return asked or min(usable_cores(), 16)
