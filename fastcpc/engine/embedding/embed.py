"""Embeds all images of a source with a frozen network, on one or several ranks, and resumes after a kill."""

import json
import logging
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
from tqdm import tqdm

import fastcpc
from fastcpc import distributed
from fastcpc.data.embeddings.record import EMBED_FILE
from fastcpc.data.loaders.image_files import BadImage, decode_image, read_bytes
from fastcpc.engine.embedding.source import Source
from fastcpc.engine.embedding.store import DONE, TODO, UNREADABLE, EmbeddingStore, read_bad, too_many
from fastcpc.engine.numerics import DTYPES, choose_precision, probe
from fastcpc.errors import RunError
from fastcpc.models.embeddings.extractor import Extractor

logger = logging.getLogger("fastcpc")
AHEAD = 16  # batches that are decoded while one is embedded
# Images per pass. On a CPU, larger passes need new memory for each layer: 4 take 26 ms per image, 32 take 48 ms.
BATCH_SIZES = {"cpu": 4, "cuda": 64}
WARM_UP = 3  # passes before the first image: a traced network computes the first ones in another way
LINE_SECONDS = 30.0
FLOAT16_MAX = 65504.0

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EmbedSettings:
    """batch_size: images per pass, 1 or more. workers: decoder threads. max_bad: largest share of unreadable images
    that are left out."""

    batch_size: int
    workers: int
    max_bad: float
    device: torch.device


def embed_source(source: Source, extractor: Extractor, folder: Path, settings: EmbedSettings) -> dict[str, Any]:
    """Write embeddings.npy, index.parquet and embed.json into the folder; returns the content of embed.json.

    Every rank must call. InputError and RunError as ``EmbeddingStore``; RunError for too many unreadable images.
    """
    precision = choose_precision("auto", probe(settings.device))
    network = _ready_network(extractor, settings, DTYPES[precision])
    num_columns = len(network(torch.zeros(1, 3, extractor.size, extractor.size, dtype=torch.uint8))[0])
    store = EmbeddingStore(folder, len(source.paths), num_columns)
    job = {
        "model": extractor.model,
        "weights_sha256": extractor.digest,
        "preprocessing": extractor.preprocessing,
        "images_sha256": source.digest(),
        "precision": precision,
        "batch_size": settings.batch_size,
    }
    try:
        if distributed.broadcast_files(distributed.on_rank0(lambda: {} if store.prepare(job) else None)) is not None:
            return _record_of(folder)
        distributed.raise_on_all_ranks(store.open)
        start, begun = time.perf_counter(), int((store.states() == TODO).sum())
        distributed.raise_on_all_ranks(lambda: _embed_share(source, extractor, network, store, settings))
        seconds = time.perf_counter() - start
        record = _record(source, extractor, settings, job, seconds, begun / max(seconds, 1e-9))
        distributed.on_rank0(lambda: _finish(source, store, settings, record))
    finally:
        store.close()
    return _record_of(folder)


def _record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / EMBED_FILE).read_bytes())
    return content


def _embed_share(
    source: Source, extractor: Extractor, network: Embed, store: EmbeddingStore, settings: EmbedSettings
) -> bool:
    """Embed this rank's batches that are not done. Batches are those of one rank, so that ranks do not matter."""
    size, num_rows = settings.batch_size, len(source.paths)
    num_batches = -(-num_rows // size)
    rank, ranks = distributed.rank(), distributed.world_size()
    own = range(rank * num_batches // ranks, (rank + 1) * num_batches // ranks)
    states = store.states()
    todo = [range(k * size, min((k + 1) * size, num_rows)) for k in own]
    todo = [rows for rows in todo if (states[rows.start : rows.stop] == TODO).any()]
    num_bad = int((states == UNREADABLE).sum())
    progress = _Progress(store, num_rows)
    try:
        for rows, decoded in _decoded(source, extractor, todo, settings.workers):
            pixels = torch.zeros(len(rows), 3, extractor.size, extractor.size, dtype=torch.uint8)
            marks = np.full(len(rows), DONE, np.uint8)
            for place, image in enumerate(decoded):
                if isinstance(image, BadImage):
                    marks[place] = UNREADABLE
                    num_bad += 1
                    store.note_bad(source.names[rows[place]], str(image))
                    logger.warning("%s cannot be read (%s); it is left out", source.names[rows[place]], image)
                else:
                    pixels[place] = image
            if num_bad > settings.max_bad * num_rows:
                raise too_many(num_bad, num_rows, settings.max_bad, list(read_bad(store.folder).items()), store.folder)
            store.write(rows.start, _to_half(network(pixels), source, rows), marks)
            progress.step()
    finally:
        store.sync()
        progress.close()
    return True


def _decoded(
    source: Source, extractor: Extractor, batches: Sequence[range], workers: int
) -> Iterator[tuple[range, list[Tensor | BadImage]]]:
    """The images of each batch, decoded ahead by threads."""

    def one(row: int) -> Tensor | BadImage:
        try:
            return extractor.transform(decode_image(read_bytes(source.paths[row])))
        except BadImage as problem:
            return problem

    waiting: deque[tuple[range, list[Future[Tensor | BadImage]]]] = deque()
    todo = iter(batches)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        while True:
            while len(waiting) <= AHEAD and (rows := next(todo, None)) is not None:
                waiting.append((rows, [pool.submit(one, row) for row in rows]))
            if not waiting:
                return
            rows, futures = waiting.popleft()
            yield rows, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ready_network(extractor: Extractor, settings: EmbedSettings, dtype: torch.dtype) -> Embed:
    """Pixels uint8 (b, 3, S, S), b up to the batch size, to embeddings float32 (b, D) on the CPU.

    Every pass has the size of a whole batch: the result for an image must not depend on how many others are with it.
    """
    device, size = settings.device, settings.batch_size
    network = extractor.network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def eager(images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=False):
            features: Tensor = network(images)
        return features

    example = extractor.normalise(torch.zeros(size, 3, extractor.size, extractor.size, dtype=torch.uint8))
    run = _traced(network, example, eager, dtype) if device.type == "cpu" else eager

    @torch.inference_mode()
    def embed(pixels: Tensor) -> Tensor:
        whole = torch.zeros(size, *pixels.shape[1:], dtype=torch.uint8)
        whole[: len(pixels)] = pixels
        return run(extractor.normalise(whole.to(device)))[: len(pixels)].float().cpu()

    for _ in range(WARM_UP):
        embed(torch.zeros(1, 3, extractor.size, extractor.size, dtype=torch.uint8))
    return embed


def _traced(network: torch.nn.Module, example: Tensor, eager: Embed, dtype: torch.dtype) -> Embed:
    """The network as a frozen graph, faster on a CPU; the network itself where tracing changes its results."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32, cache_enabled=False):
                graph = torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))
            noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
            noise = noise.to(memory_format=torch.channels_last)
            for _ in range(WARM_UP):
                found = graph(noise)
            expected = eager(noise)
    except Exception as error:  # whatever tracing cannot do: the network runs as it is
        logger.debug("the network is not traced: %s", error)
        return eager
    scale = float(expected.float().abs().max())
    tolerance = (1e-3 if dtype == torch.float32 else 3e-2) * max(scale, 1e-6)
    if not torch.allclose(found.float(), expected.float(), rtol=0, atol=tolerance):
        return eager
    return lambda images: graph(images)  # type: ignore[no-any-return]


def _to_half(values: Tensor, source: Source, rows: range) -> NDArray[np.float16]:
    """Embeddings as float16. RunError where the network gives NaN, inf, or more than float16 can hold."""
    bad = torch.nonzero(~(values.abs() <= FLOAT16_MAX).all(1)).flatten()
    if len(bad):
        name = source.names[rows[int(bad[0])]]
        raise RunError(
            f"{name}: its embedding has values that are NaN, inf or above {FLOAT16_MAX:g}; use other weights"
        )
    return values.numpy().astype(np.float16)


class _Progress:
    """A bar at a terminal, else a line every 30 seconds; on rank 0 only."""

    def __init__(self, store: EmbeddingStore, num_rows: int) -> None:
        self._store, self._num_rows = store, num_rows
        self._start = self._last = time.monotonic()
        self._first = self._done()
        self._shown = distributed.is_rank0()
        at_terminal = self._shown and sys.stderr.isatty()
        self._bar = tqdm(total=num_rows, initial=self._first, unit="img", desc="embedding") if at_terminal else None

    def _done(self) -> int:
        return int((self._store.states() != TODO).sum()) + sum(len(states) for _, states in self._store.waiting)

    def step(self) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._done() - self._bar.n)
        elif self._shown and now - self._last >= LINE_SECONDS:
            self._last, done = now, self._done()
            rate = (done - self._first) / (now - self._start)
            left = f", {(self._num_rows - done) / rate:,.0f} s left" if rate else ""
            logger.info("embedded %s of %s images (%.0f images/s%s)", f"{done:,}", f"{self._num_rows:,}", rate, left)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _record(
    source: Source, extractor: Extractor, settings: EmbedSettings, job: dict[str, Any], seconds: float, rate: float
) -> dict[str, Any]:
    """The content of embed.json, without the number of images."""
    return {
        **job,
        "weights": extractor.weights,
        "root": str(source.root),
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked or min(cores, 16)
