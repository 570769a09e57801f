"""A frozen network made ready for one batch size: on the device, in its precision, and traced on a CPU.

Only ``embed.py`` calls it. Threads may call the result at the same time.
"""

import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from fastcpc.models.embeddings.extractor import Extractor

logger = logging.getLogger("fastcpc")
WARM_UP = 3  # passes before the first image: a traced network computes the first ones in another way
Embed = Callable[[Tensor], Tensor]


def ready_network(extractor: Extractor, batch_size: int, device: torch.device, dtype: torch.dtype) -> Embed:
    """Pixels uint8 (b, 3, S, S), b up to the batch size, to embeddings float32 (b, D) on the CPU.

    Every pass has the size of a whole batch: the result for an image must not depend on how many others are with it.
    """
    size = batch_size
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
    return lambda images: graph(images)
