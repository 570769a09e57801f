"""Launches of the Triton prototype loss and scores: tile sizes, buffers, autograd."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .prototype_triton_kernels import (
    ALIGNMENT,
    DTYPES,
    INTERPRETED,
    SUMS,
    backward_kernel,
    forward_kernel,
    scores_kernel,
)

MAX_DIM = 512
COLUMNS = 128  # of a half-precision tile
KEEP_CLASSES = 128  # with more classes a logit tile's second use pays for the sums that it leaves
PROGRAMS = 264  # that share the prototypes' gradient: two for each of the 132 multiprocessors of an H100 or H200
MAX_SPLITS = 32  # partial sums that the last program of a tile adds up


@dataclass(frozen=True)
class Tiles:
    """What the loss is compiled for: rows, classes and columns of a tile, and how it is run."""

    dot: torch.dtype  # of what goes into the tensor cores
    rows: int
    classes: int
    columns: int
    single: bool  # whether a row fits ``columns``
    keep: bool  # whether the forward pass leaves what the embeddings' gradient needs
    num_warps: int
    num_stages: tuple[int, int]  # of the forward and of the backward pass

    def constants(self) -> dict[str, Any]:
        """The compile-time arguments that both passes share, but for loop counts."""
        # The interpreter holds bfloat16 as integers, and a dot would multiply these integers.
        dot = torch.float32 if INTERPRETED and self.dot == torch.bfloat16 else self.dot
        return {
            "KEEP": self.keep, "DOT": DTYPES[dot], "BD": self.columns, "BM": self.rows, "BK": self.classes,
        }  # fmt: skip

    def options(self, backward: bool) -> dict[str, int]:
        """How a pass is run."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages[backward]}


def choose_tiles(dot: torch.dtype, dim: int, num_classes: int, needs_rows_grad: bool, capability: int) -> Tiles:
    """The tiles of the loss on a device of ``capability`` (90 for 9.0): none spills there."""
    if dot == torch.float32:  # no tensor cores: exact products
        return Tiles(dot, 32, 32, 64, False, False, 4, (2, 3))
    if dim > COLUMNS:
        return Tiles(dot, 64, 32, COLUMNS, False, False, 8, (2, 2) if capability >= 90 else (1, 2))
    if num_classes > KEEP_CLASSES and needs_rows_grad:
        return Tiles(dot, 128 if capability >= 90 else 64, 64, COLUMNS, True, True, 8, (3, 3))
    return Tiles(dot, 64, 64, COLUMNS, True, False, 8, (2, 2))


class PrototypeLossTriton(torch.autograd.Function):
    """``prototype_loss`` on arguments that were checked, both matrices of one dtype, outside autocast; never waits for
    the device."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        prototypes: Tensor,
        labels: Tensor,
        clean: Tensor,
        pseudo_labels: Tensor | None,
        alpha: float,
        neg_weight: float,
        set_sizes: Tensor | None,
    ) -> Tensor:
        ctx.dim = embeddings.shape[1]
        embeddings, prototypes = _aligned(embeddings), _aligned(prototypes)
        (num_rows, dim), num_classes = embeddings.shape, prototypes.shape[0]
        tiles = choose_tiles(embeddings.dtype, dim, num_classes, ctx.needs_input_grad[0], _capability(embeddings))
        num_programs = -(-num_rows // tiles.rows)
        given, chosen = _floats(embeddings, num_rows), _floats(embeddings, num_rows)
        kept = _floats(embeddings, num_rows, dim) if tiles.keep else given
        partial, loss, shares = _floats(embeddings, SUMS, num_programs), _floats(embeddings), _floats(embeddings, 3)
        sets = (labels.contiguous(), clean.contiguous().view(torch.uint8), _or(pseudo_labels, labels).contiguous())
        sizes = shares if set_sizes is None else set_sizes.to(torch.float32)
        with _device_of(embeddings):
            forward_kernel[(num_programs,)](
                embeddings, prototypes, *sets, sizes,
                given, chosen, kept, partial, tickets_for(embeddings.device, 1), loss, shares,
                embeddings.stride(0), prototypes.stride(0), num_rows, num_classes, dim,
                int(pseudo_labels is not None), int(set_sizes is not None), alpha, neg_weight,
                **tiles.constants(), **_loops(tiles, dim, num_classes), PARTS=-(-dim // 32) if INTERPRETED else 0,
                **tiles.options(backward=False),
            )  # fmt: skip
        ctx.save_for_backward(embeddings, prototypes, *sets, given, chosen, kept, shares)
        ctx.tiles, ctx.has_pseudo, ctx.neg_weight = tiles, int(pseudo_labels is not None), neg_weight
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, prototypes, *_ = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        (num_rows, dim), num_classes = embeddings.shape, prototypes.shape[0]
        plan = plan_backward(num_rows, num_classes, dim, tiles, *ctx.needs_input_grad[:2])
        grad_v, grad_c = _empty_grad(embeddings), _empty_grad(prototypes)
        partial = _floats(embeddings, plan.num_splits if plan.num_splits > 1 else 0, num_classes, dim)
        with _device_of(embeddings):
            backward_kernel[(plan.class_programs + plan.row_programs,)](
                *ctx.saved_tensors, upstream, grad_v, grad_c, partial, tickets_for(embeddings.device, plan.num_places),
                embeddings.stride(0), prototypes.stride(0), num_rows, num_classes, dim, ctx.has_pseudo, ctx.neg_weight,
                plan.class_programs, plan.num_splits, plan.blocks_per_split,
                **tiles.constants(), **_loops(tiles, dim, num_classes),
                BLOCKS=plan.blocks_per_split if INTERPRETED else 0, **tiles.options(backward=True),
            )  # fmt: skip
        grads = grad_v[:, : ctx.dim].to(embeddings.dtype), grad_c[:, : ctx.dim].to(prototypes.dtype)
        wanted = zip(grads, ctx.needs_input_grad[:2], strict=True)
        return (*(grad if needed else None for grad, needed in wanted), *(None,) * 6)


@dataclass(frozen=True)
class BackwardPlan:
    """Programs of one backward launch."""

    num_places: int  # tiles of the prototypes' gradient
    num_splits: int  # runs of rows that each tile is split into
    blocks_per_split: int
    class_programs: int
    row_programs: int


def plan_backward(
    num_rows: int, num_classes: int, dim: int, tiles: Tiles, needs_rows: bool, needs_classes: bool
) -> BackwardPlan:
    """Splits the rows among just enough programs to fill a large GPU, which also bounds the partial sums."""
    blocks, chunks = -(-num_rows // tiles.rows), -(-dim // tiles.columns)
    places = -(-num_classes // tiles.classes) * chunks
    wanted = min(-(-PROGRAMS // places), MAX_SPLITS, blocks)
    blocks_per_split = -(-blocks // wanted)
    splits = -(-blocks // blocks_per_split)
    class_programs = places * splits if needs_classes else 0
    row_programs = blocks * chunks if needs_rows else 0
    return BackwardPlan(places, splits, blocks_per_split, class_programs, row_programs)


SCORE_ROWS, SCORE_COLUMNS, SCORE_WARPS = 32, 64, 4  # of a program of the scores


def prototype_scores_triton(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
    """``prototype_scores`` on arguments that were checked: one launch for any number of rows."""
    if embeddings.dtype != prototypes.dtype:
        embeddings, prototypes = embeddings.float(), prototypes.float()
    embeddings, prototypes, labels = _aligned(embeddings), _aligned(prototypes), labels.contiguous()
    num_rows, dim = embeddings.shape
    scores = torch.empty(num_rows, dtype=torch.float32, device=embeddings.device)
    chunks = -(-dim // SCORE_COLUMNS) if INTERPRETED else 0
    if num_rows:
        with _device_of(embeddings):
            scores_kernel[(-(-num_rows // SCORE_ROWS),)](
                embeddings, prototypes, labels, scores, embeddings.stride(0), prototypes.stride(0), num_rows,
                prototypes.shape[0], dim, CHUNKS=chunks, BD=SCORE_COLUMNS, BM=SCORE_ROWS, num_warps=SCORE_WARPS,
            )  # fmt: skip
    return scores


def unsupported_reason(embeddings: Tensor, prototypes: Tensor) -> str:
    """Why Triton cannot take these here, or nothing."""
    if not (embeddings.is_cuda or INTERPRETED):
        return f"tensors are on {embeddings.device}, not on a CUDA device"
    if _capability(embeddings) < 80:
        return f"{embeddings.device} has no tensor cores for bfloat16; it takes compute capability 8.0 or more"
    for name, tensor in (("embeddings", embeddings), ("prototypes", prototypes)):
        if tensor.dtype not in DTYPES:
            return f"{name} are {tensor.dtype}; it takes float32, float16 and bfloat16"
    return (
        f"rows have {embeddings.shape[1]} elements; it takes up to {MAX_DIM}" if embeddings.shape[1] > MAX_DIM else ""
    )


def _aligned(matrix: Tensor) -> Tensor:
    """``matrix``, or a copy with columns of zeros, such that every row starts where the kernels read at full width."""
    rows, columns = matrix.shape
    starts = (matrix.data_ptr(), columns, matrix.stride(0))
    if matrix.stride(1) == 1 and not any(start % ALIGNMENT for start in starts):
        return matrix
    copy = matrix.new_zeros(rows, -(-columns // ALIGNMENT) * ALIGNMENT)
    copy[:, :columns] = matrix
    return copy


def _floats(example: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=example.device)


def _empty_grad(matrix: Tensor) -> Tensor:
    # The interpreter would cut a bfloat16 off instead of rounding it.
    return torch.empty(matrix.shape, dtype=torch.float32 if INTERPRETED else matrix.dtype, device=matrix.device)


def _device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    return stand_in if tensor is None else tensor


def _loops(tiles: Tiles, dim: int, num_classes: int) -> dict[str, int]:
    """Counts of the loops over columns and classes; 0: known at run time only."""
    if INTERPRETED:
        return {"CHUNKS": -(-dim // tiles.columns), "TILES": -(-num_classes // tiles.classes)}
    return {"CHUNKS": int(tiles.single), "TILES": 0}


def _capability(tensor: Tensor) -> int:
    """The device's compute capability times 10; the interpreter takes the tiles of the newest."""
    if not tensor.is_cuda:
        return 90
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return 10 * major + minor


_ticket_store: dict[tuple[int, int], Tensor] = {}


def tickets_for(device: torch.device, count: int) -> Tensor:
    """``count`` zeros that a launch leaves as zeros. Kept for each stream, whose launches follow one another.

    A CUDA graph gets its own, zeroed at each replay: it may be replayed on another stream than it was captured on.
    """
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(count, dtype=torch.int32, device=device)
    key = (device.index, torch.cuda.current_stream(device).cuda_stream)
    kept = _ticket_store.get(key)
    if kept is None or len(kept) < count:
        kept = _ticket_store[key] = torch.zeros(max(count, 1024), dtype=torch.int32, device=device)
    return kept
