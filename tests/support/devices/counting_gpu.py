"""A pretended GPU that counts operations, bytes and FLOPs by stage, at the sizes of a real run, in seconds.

Tensors of more than ``LIMIT`` elements, and all that is computed from them, have shapes but no values. So one step of
a large network costs a CPU nothing. What reads such a value gets zeros.

An operation is one of torch's. A view does not count. Its bytes are those of its inputs and outputs, each moved once.
FLOPs are those of convolutions and matrix products, by torch's own formulas; a multiplication and an addition are two.
Autocast's cache is counted as on a GPU: a weight is cast once per unit.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pretend_gpu import FUSED, OnGpu, PretendGpu, aten
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

LIMIT = 2**16
FREE = {
    aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.new_empty.default,
    aten.new_empty_strided.default, aten._unsafe_view.default, aten.lift_fresh.default,
}  # fmt: skip


@dataclass
class Counts:
    """operations of torch on the device, the bytes that they move, and their FLOPs.

    sent, sent_bytes: copies from main memory among them. pageable: how many of these were not from pinned memory.
    """

    operations: int = 0
    num_bytes: int = 0
    flops: int = 0
    sent: int = 0
    sent_bytes: int = 0
    pageable: int = 0


class CountingGpu(PretendGpu):
    """stages: the counts by stage; outside of ``stage`` nothing is counted. weights: ``values_of`` the networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: dict[str, Counts] = defaultdict(Counts)
        self.weights: frozenset[int] = frozenset()
        self._current: Counts | None = None
        self._cast: set[tuple[int, torch.dtype]] = set()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Within it operations are counted for this stage."""
        before, self._current = self._current, self.stages[name]
        self._cast.clear()
        try:
            yield
        finally:
            self._current = before

    @contextmanager
    def capture(self, graph: Any, **options: Any) -> Iterator[None]:
        """Within it operations are counted for the graph."""
        before, self._current = self._current, Counts()
        graph.counts = self._current
        try:
            with super().capture(graph, **options):
                yield
        finally:
            self._current = before

    def replay(self, graph: Any) -> None:
        """Count a replay: one operation with the bytes and FLOPs of those captured. Values stay as they are."""
        self.replays += 1
        self._add(graph.counts.num_bytes, graph.counts.flops)

    def launched(self, *tensors: Tensor) -> None:
        """Count a kernel of the project on these tensors."""
        self._add(sum(tensor.nbytes for tensor in tensors), 0)

    def compute(self, func: Any, args: Any, kwargs: Any, *, from_gpu: bool, to_gpu: bool) -> Any:
        result = self._shapes_only(func, args, kwargs, to_gpu)
        if (from_gpu or to_gpu) and not func.is_view and func not in FREE and not self._is_cached(func, args, kwargs):
            packet = func._overloadpacket
            flops = flop_registry[packet](*args, **kwargs, out_val=result) if packet in flop_registry else 0
            self._add(sum(part.nbytes for part in _tensors((args, kwargs, result))), flops)
        if to_gpu and not from_gpu and func is aten._to_copy.default:
            self._note_sent(args[0])
        return result

    def _note_sent(self, source: Tensor) -> None:
        if self._current is not None:
            self._current.sent += 1
            self._current.sent_bytes += source.nbytes
            self._current.pageable += source not in self._pinned

    def _add(self, num_bytes: int, flops: int) -> None:
        if self._current is not None:
            self._current.operations += 1
            self._current.num_bytes += num_bytes
            self._current.flops += flops

    def _is_cached(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether this casts a weight again, which autocast keeps."""
        if func is not aten._to_copy.default or id(args[0]) not in self.weights:
            return False
        key = id(args[0]), kwargs.get("dtype") or args[0].dtype
        found = key in self._cast
        self._cast.add(key)
        return found

    def _shapes_only(self, func: Any, args: Any, kwargs: Any, to_gpu: bool) -> Any:
        inputs = _tensors((args, kwargs))
        if not any(tensor.is_meta for tensor in inputs):
            result = func(*args, **kwargs)
            return (
                tree_map_only(Tensor, _without_values, result) if to_gpu and not _in_place(inputs, result) else result
            )
        if not to_gpu:  # reads what has no values
            if func is aten.copy_.default:
                return args[0].zero_()
            return torch.zeros(inputs[0].shape, dtype=kwargs.get("dtype") or inputs[0].dtype)
        if func in FUSED:
            return None
        shapes = {id(tensor): tensor if tensor.is_meta else tensor.to("meta") for tensor in inputs}
        originals = {id(shapes[id(tensor)]): tensor for tensor in inputs}
        args, kwargs = tree_map_only(Tensor, lambda tensor: shapes[id(tensor)], (args, kwargs))
        if "device" in kwargs:
            kwargs["device"] = torch.device("meta")
        return tree_map_only(Tensor, lambda tensor: originals.get(id(tensor), tensor), func(*args, **kwargs))


def values_of(network: torch.nn.Module) -> frozenset[int]:
    """For ``CountingGpu.weights``: which values are those of a network's parameters on the device."""
    parameters = list(network.parameters())
    assert all(isinstance(parameter, OnGpu) for parameter in parameters)
    return frozenset(id(parameter.held) for parameter in parameters)  # type: ignore[attr-defined]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _in_place(inputs: list[Tensor], result: Any) -> bool:
    return any(made is tensor for made in _tensors(result) for tensor in inputs)


def _without_values(tensor: Tensor) -> Tensor:
    if tensor.numel() <= LIMIT:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
