"""The prototype loss and scores in Triton, device code: no B x K matrix, bit-identical repeats, no host in between.

Forward, one launch: a program takes a block of rows, walks over all prototypes in tiles and keeps one number a row,
sum_{k != y} softplus(s_ik). The logits of the given and of the pseudo-label come from their gathered prototypes. The
program that ends last adds up all programs' sums and counts in order, and leaves the loss and 1/|X|, 1/|U|, alpha/|P|.

Backward, one launch: programs of the first kind take a tile of prototypes and a run of rows, recompute the tile's
logits and sum G'V. The last to end of a tile's programs adds their partial sums in order. Programs of the second kind
take a block of rows and walk over the prototypes for G C. G_ik = dL/ds_ik goes into a dot as a number of at most 1, its
scale kept apart. So half precision neither overflows nor flushes small values to zero. With many classes (KEEP) the
forward pass, which has the same tile and exp, also sums sigmoid(s) C. The second kind then only scales it.

Bytes moved beyond the caches, with rows of d elements of e bytes. Forward: B d e read. Backward: 2 B d e read and B d e
written (with KEEP 8 B d more, of float32 sums). The few tiles of partial sums are extra. Work: 2 B K d and 8 B K d
multiply and add, with KEEP 4 and 4.

CHUNKS is 1 where a row fits a tile's BD columns, else 0. Under the interpreter, which cannot loop over a number known
at run time only, CHUNKS, PARTS, TILES and BLOCKS are the counts of their loops. Else the last three are 0.
"""

# mypy: ignore-errors
# (device code: Triton's own types, not Python's)

import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
ALIGNMENT = 16  # bytes of a matrix's start, elements of its rows: without it no tile fits the registers
SIZES = ["num_rows", "num_classes", "num_class_programs", "num_splits", "blocks_per_split"]
RUN_TIME = [*SIZES, "has_pseudo", "has_sizes"]  # Triton would compile again for 1 and for multiples of 16
ANYWHERE = ["label_ptr", "clean_ptr", "pseudo_ptr", "size_ptr", "upstream_ptr"]  # these may start at any element
SUMS = 7  # columns of the forward pass's partial sums: three sums, three counts, labels out of range


@triton.jit
def _softplus_term(small):
    """log(1 + small) for small in [0, 1], relative error 1.5e-7: a polynomial spares the special-function unit."""
    p = small * -0.00317605705 + 0.0195425274
    p = p * small - 0.0563736132
    p = p * small + 0.105436238
    p = p * small - 0.152696671
    p = p * small + 0.196632743
    p = p * small - 0.249516163
    p = p * small + 0.333297105
    p = p * small - 0.499998926
    p = p * small + 0.999999995
    return p * small


@triton.jit
def _softplus(s):
    return tl.maximum(s, 0.0) + _softplus_term(tl.exp(-tl.abs(s)))


@triton.jit
def _sigmoid(s):
    small = tl.exp(-tl.abs(s))
    return tl.where(s >= 0, 1.0, small) / (1.0 + small)


@triton.jit
def _load_rows(ptr, row, row_mask, stride, col, dim, DOT: tl.constexpr):
    """A tile of a matrix, 0 outside of it; ``row`` is int64."""
    mask = row_mask[:, None] & (col < dim)[None, :]
    return tl.load(ptr + row[:, None] * stride + col[None, :], mask=mask, other=0.0).to(DOT)


@triton.jit
def _logits(v0, c0, v_ptr, c_ptr, row, row_mask, k, k_mask, stride_v, stride_c, dim,
            DOT: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """The tile V C' of float32 logits; ``v0`` and ``c0`` are the first chunks of the rows, further ones are loaded."""
    s = tl.dot(v0, tl.trans(c0), input_precision="ieee")
    for chunk in range(1, CHUNKS if CHUNKS > 0 else tl.cdiv(dim, BD)):
        col = chunk * BD + tl.arange(0, BD)
        v = _load_rows(v_ptr, row, row_mask, stride_v, col, dim, DOT)
        c = _load_rows(c_ptr, k, k_mask, stride_c, col, dim, DOT)
        s = tl.dot(v, tl.trans(c), s, input_precision="ieee")
    return s


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=ANYWHERE)
def forward_kernel(
    v_ptr, c_ptr, label_ptr, clean_ptr, pseudo_ptr, size_ptr,
    given_ptr, chosen_ptr, kept_ptr, partial_ptr, ticket_ptr, loss_ptr, share_ptr,
    stride_v, stride_c, num_rows, num_classes, dim, has_pseudo, has_sizes, alpha, neg_weight,
    KEEP: tl.constexpr, DOT: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Loss, shares 1/|X|, 1/|U|, 1/|P|, the two gathered logits of each row and, with KEEP, sum_k sigmoid(s_ik) c_k."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    in_batch = row < num_rows
    clean = tl.load(clean_ptr + row, mask=in_batch, other=0) != 0
    y = tl.load(label_ptr + row, mask=in_batch, other=0)
    p = tl.load(pseudo_ptr + row, mask=in_batch & (has_pseudo != 0), other=-1)
    y_known = in_batch & (y >= 0) & (y < num_classes)
    p_known = (p >= 0) & (p < num_classes)
    bad = (in_batch & ~y_known) | (p < -1) | (p >= num_classes)

    given = tl.zeros((BM,), tl.float32)
    chosen = tl.zeros((BM,), tl.float32)
    for part in range(PARTS if PARTS > 0 else tl.cdiv(dim, 32)):  # short runs of columns: few registers
        col = part * 32 + tl.arange(0, 32)
        v = _load_rows(v_ptr, row, in_batch, stride_v, col, dim, tl.float32)
        given += tl.sum(v * _load_rows(c_ptr, y, y_known, stride_c, col, dim, tl.float32), 1)
        chosen += tl.sum(v * _load_rows(c_ptr, p, p_known, stride_c, col, dim, tl.float32), 1)
    tl.store(given_ptr + row, given, mask=in_batch)
    tl.store(chosen_ptr + row, chosen, mask=in_batch)

    col = tl.arange(0, BD)
    v0 = _load_rows(v_ptr, row, in_batch, stride_v, col, dim, DOT)
    y_32 = y.to(tl.int32)
    negatives = tl.zeros((BM,), tl.float32)
    kept = tl.zeros((BM, BD), tl.float32)
    for tile in range(TILES if TILES > 0 else tl.cdiv(num_classes, BK)):
        k = tile * BK + tl.arange(0, BK)
        k_mask = k < num_classes
        c0 = _load_rows(c_ptr, k.to(tl.int64), k_mask, stride_c, col, dim, DOT)
        s = _logits(v0, c0, v_ptr, c_ptr, row, in_batch, k.to(tl.int64), k_mask, stride_v, stride_c, dim,
                    DOT, CHUNKS, BD)  # fmt: skip
        other = (k[None, :] != y_32[:, None]) & k_mask[None, :]
        small = tl.exp(-tl.abs(s))
        negatives += tl.sum(tl.where(other, tl.maximum(s, 0.0) + _softplus_term(small), 0.0), 1)
        if KEEP:
            sigmoid = tl.where(s >= 0, 1.0, small) / (1.0 + small)
            kept = tl.dot(tl.where(other, sigmoid, 0.0).to(DOT), c0, kept, input_precision="ieee")
    if KEEP:
        tl.store(kept_ptr + row[:, None] * dim + col[None, :], kept, mask=in_batch[:, None] & (col < dim)[None, :])

    in_x = in_batch & clean
    in_u = in_batch & ~clean
    first = partial_ptr + tl.program_id(0)
    step = tl.num_programs(0)
    tl.store(first, tl.sum(tl.where(in_x, _softplus(-given) + neg_weight * negatives, 0.0), 0))
    tl.store(first + step, tl.sum(tl.where(in_u, _softplus(given), 0.0), 0))
    tl.store(first + 2 * step, tl.sum(tl.where(p_known, _softplus(-chosen), 0.0), 0))
    tl.store(first + 3 * step, tl.sum(in_x.to(tl.float32), 0))
    tl.store(first + 4 * step, tl.sum(in_u.to(tl.float32), 0))
    tl.store(first + 5 * step, tl.sum(p_known.to(tl.float32), 0))
    tl.store(first + 6 * step, tl.sum(bad.to(tl.float32), 0))
    tl.debug_barrier()  # every thread's stores come before the ticket
    if tl.atomic_add(ticket_ptr, 1, sem="acq_rel") == step - 1:
        _finish_loss(partial_ptr, size_ptr, loss_ptr, share_ptr, step, has_sizes, alpha)
        tl.store(ticket_ptr, 0)  # ready for the next launch


@triton.jit
def _finish_loss(partial_ptr, size_ptr, loss_ptr, share_ptr, num_partials, has_sizes, alpha):
    """Sums and counts of all programs, in order; a label out of range turns the loss and every gradient into NaN."""
    bad = _column_sum(partial_ptr + 6 * num_partials, num_partials)
    loss = 0.0
    for part in tl.static_range(3):
        total = _column_sum(partial_ptr + part * num_partials, num_partials)
        size = _column_sum(partial_ptr + (3 + part) * num_partials, num_partials)
        if has_sizes != 0:
            size = tl.load(size_ptr + part)
        share = tl.where(size > 0, 1.0 / tl.maximum(size, 1.0), 0.0)
        share = tl.where(bad > 0, float("nan"), share)
        if part == 2:
            share *= alpha
        tl.store(share_ptr + part, share)
        loss += share * total
    tl.store(loss_ptr, loss)


@triton.jit
def _column_sum(ptr, count):
    """Sum of ``count`` numbers that other programs wrote."""
    sums = tl.zeros((256,), tl.float32)
    start = 0
    while start < count:
        index = start + tl.arange(0, 256)
        sums += tl.load(ptr + index, mask=index < count, other=0.0, cache_modifier=".cg")
        start += 256
    return tl.sum(sums, 0)


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=ANYWHERE)
def backward_kernel(
    v_ptr, c_ptr, label_ptr, clean_ptr, pseudo_ptr, given_ptr, chosen_ptr, kept_ptr, share_ptr, upstream_ptr,
    grad_v_ptr, grad_c_ptr, partial_ptr, ticket_ptr,
    stride_v, stride_c, num_rows, num_classes, dim, has_pseudo, neg_weight,
    num_class_programs, num_splits, blocks_per_split,
    KEEP: tl.constexpr, DOT: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """The first ``num_class_programs`` programs sum the prototypes' gradient, the others the embeddings'."""
    share_x = tl.load(share_ptr)
    share_u = tl.load(share_ptr + 1)
    share_p = tl.load(share_ptr + 2)
    upstream = tl.load(upstream_ptr).to(tl.float32)
    if tl.program_id(0) < num_class_programs:
        _classes_program(v_ptr, c_ptr, label_ptr, clean_ptr, pseudo_ptr, given_ptr, chosen_ptr,
                         grad_c_ptr, partial_ptr, ticket_ptr, stride_v, stride_c, num_rows, num_classes, dim,
                         has_pseudo, neg_weight, num_splits, blocks_per_split, share_x, share_u, share_p, upstream,
                         DOT, CHUNKS, BD, BM, BK, BLOCKS)  # fmt: skip
    else:
        _rows_program(v_ptr, c_ptr, label_ptr, clean_ptr, pseudo_ptr, given_ptr, chosen_ptr, kept_ptr,
                      grad_v_ptr, stride_v, stride_c, num_rows, num_classes, dim,
                      has_pseudo, neg_weight, num_class_programs, share_x, share_u, share_p, upstream,
                      KEEP, DOT, CHUNKS, BD, BM, BK, TILES)  # fmt: skip


@triton.jit
def _classes_program(
    v_ptr, c_ptr, label_ptr, clean_ptr, pseudo_ptr, given_ptr, chosen_ptr, grad_c_ptr, partial_ptr, ticket_ptr,
    stride_v, stride_c, num_rows, num_classes, dim, has_pseudo, neg_weight, num_splits, blocks_per_split,
    share_x, share_u, share_p, upstream,
    DOT: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """G'V of one tile of prototypes, one chunk of columns and one run of rows; the last run to end adds up all runs."""
    num_tiles = tl.cdiv(num_classes, BK)
    num_places = num_tiles * tl.cdiv(dim, BD)
    place = tl.program_id(0) % num_places
    split = tl.program_id(0) // num_places
    k = (place % num_tiles) * BK + tl.arange(0, BK)
    k_mask = k < num_classes
    out_col = (place // num_tiles) * BD + tl.arange(0, BD)
    col = tl.arange(0, BD)
    c0 = _load_rows(c_ptr, k.to(tl.int64), k_mask, stride_c, col, dim, DOT)
    # G is kept at most 1: scaled by the greatest weight, which multiplies the sum.
    scale = tl.maximum(tl.maximum(share_x, neg_weight * share_x), tl.maximum(share_u, share_p))
    inverse = tl.where(scale > 0, 1.0 / scale, 0.0)
    acc = tl.zeros((BK, BD), tl.float32)
    for block in range(BLOCKS if BLOCKS > 0 else blocks_per_split):
        row = (split * blocks_per_split + block).to(tl.int64) * BM + tl.arange(0, BM)
        in_batch = row < num_rows
        v0 = _load_rows(v_ptr, row, in_batch, stride_v, col, dim, DOT)
        s = _logits(v0, c0, v_ptr, c_ptr, row, in_batch, k.to(tl.int64), k_mask, stride_v, stride_c, dim,
                    DOT, CHUNKS, BD)  # fmt: skip
        clean = tl.load(clean_ptr + row, mask=in_batch, other=0) != 0
        y = tl.load(label_ptr + row, mask=in_batch, other=-1).to(tl.int32)
        p = tl.load(pseudo_ptr + row, mask=in_batch & (has_pseudo != 0), other=-1).to(tl.int32)
        given = tl.load(given_ptr + row, mask=in_batch, other=0.0)
        chosen = tl.load(chosen_ptr + row, mask=in_batch, other=0.0)
        negative = tl.where(clean, neg_weight * share_x * inverse, 0.0)
        at_given = tl.where(clean, -share_x * _sigmoid(-given), share_u * _sigmoid(given)) * inverse
        at_chosen = -share_p * _sigmoid(-chosen) * inverse
        g = tl.where(k[None, :] == y[:, None], at_given[:, None], negative[:, None] * _sigmoid(s))
        g += tl.where(k[None, :] == p[:, None], at_chosen[:, None], 0.0)
        v_out = v0 if CHUNKS == 1 else _load_rows(v_ptr, row, in_batch, stride_v, out_col, dim, DOT)
        acc = tl.dot(tl.trans(g.to(DOT)), v_out, acc, input_precision="ieee")
    acc *= scale * upstream
    mask = k_mask[:, None] & (out_col < dim)[None, :]
    offset = k.to(tl.int64)[:, None] * dim + out_col[None, :]
    if num_splits == 1:
        tl.store(grad_c_ptr + offset, acc, mask=mask)
    else:
        size = num_classes.to(tl.int64) * dim
        tl.store(partial_ptr + split * size + offset, acc, mask=mask)
        tl.debug_barrier()
        if tl.atomic_add(ticket_ptr + place, 1, sem="acq_rel") == num_splits - 1:
            total = tl.zeros((BK, BD), tl.float32)
            run = 0
            while run < num_splits:
                total += tl.load(partial_ptr + run * size + offset, mask=mask, other=0.0, cache_modifier=".cg")
                run += 1
            tl.store(grad_c_ptr + offset, total, mask=mask)
            tl.store(ticket_ptr + place, 0)


@triton.jit
def _rows_program(
    v_ptr, c_ptr, label_ptr, clean_ptr, pseudo_ptr, given_ptr, chosen_ptr, kept_ptr, grad_v_ptr,
    stride_v, stride_c, num_rows, num_classes, dim, has_pseudo, neg_weight, num_class_programs,
    share_x, share_u, share_p, upstream,
    KEEP: tl.constexpr, DOT: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """G C of one block of rows and one chunk of columns; the terms of label and pseudo-label are added in float32."""
    place = tl.program_id(0) - num_class_programs
    num_chunks = tl.cdiv(dim, BD)
    row = (place // num_chunks).to(tl.int64) * BM + tl.arange(0, BM)
    out_col = (place % num_chunks) * BD + tl.arange(0, BD)
    in_batch = row < num_rows
    clean = tl.load(clean_ptr + row, mask=in_batch, other=0) != 0
    y = tl.load(label_ptr + row, mask=in_batch, other=-1)
    p = tl.load(pseudo_ptr + row, mask=in_batch & (has_pseudo != 0), other=-1)
    out_mask = in_batch[:, None] & (out_col < dim)[None, :]
    if KEEP:
        acc = tl.load(kept_ptr + row[:, None] * dim + out_col[None, :], mask=out_mask, other=0.0)
    else:
        y_32 = y.to(tl.int32)
        col = tl.arange(0, BD)
        v0 = _load_rows(v_ptr, row, in_batch, stride_v, col, dim, DOT)
        acc = tl.zeros((BM, BD), tl.float32)
        for tile in range(TILES if TILES > 0 else tl.cdiv(num_classes, BK)):
            k = tile * BK + tl.arange(0, BK)
            k_mask = k < num_classes
            c0 = _load_rows(c_ptr, k.to(tl.int64), k_mask, stride_c, col, dim, DOT)
            s = _logits(v0, c0, v_ptr, c_ptr, row, in_batch, k.to(tl.int64), k_mask, stride_v, stride_c, dim,
                        DOT, CHUNKS, BD)  # fmt: skip
            g = tl.where(k[None, :] != y_32[:, None], _sigmoid(s), 0.0)
            c_out = c0 if CHUNKS == 1 else _load_rows(c_ptr, k.to(tl.int64), k_mask, stride_c, out_col, dim, DOT)
            acc = tl.dot(g.to(DOT), c_out, acc, input_precision="ieee")
    given = tl.load(given_ptr + row, mask=in_batch, other=0.0)
    chosen = tl.load(chosen_ptr + row, mask=in_batch, other=0.0)
    at_given = tl.where(clean, -share_x * _sigmoid(-given), share_u * _sigmoid(given))
    at_chosen = -share_p * _sigmoid(-chosen)
    acc *= tl.where(clean, neg_weight * share_x, 0.0)[:, None]
    y_mask = (y >= 0) & (y < num_classes)
    p_mask = (p >= 0) & (p < num_classes)
    acc += at_given[:, None] * _load_rows(c_ptr, y, y_mask, stride_c, out_col, dim, tl.float32)
    acc += at_chosen[:, None] * _load_rows(c_ptr, p, p_mask, stride_c, out_col, dim, tl.float32)
    tl.store(grad_v_ptr + row[:, None] * dim + out_col[None, :], acc * upstream, mask=out_mask)


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=ANYWHERE)
def scores_kernel(
    v_ptr, c_ptr, label_ptr, score_ptr, stride_v, stride_c, num_rows, num_classes, dim,
    CHUNKS: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """sigmoid(v_i . c_{y_i}) of a block of rows; NaN where the label is out of range."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    in_batch = row < num_rows
    y = tl.load(label_ptr + row, mask=in_batch, other=0)
    known = in_batch & (y >= 0) & (y < num_classes)
    s = tl.zeros((BM,), tl.float32)
    for chunk in range(CHUNKS if CHUNKS > 0 else tl.cdiv(dim, BD)):
        col = chunk * BD + tl.arange(0, BD)
        v = _load_rows(v_ptr, row, in_batch, stride_v, col, dim, tl.float32)
        s += tl.sum(v * _load_rows(c_ptr, y, known, stride_c, col, dim, tl.float32), 1)
    tl.store(score_ptr + row, tl.where(known, _sigmoid(s), float("nan")), mask=in_batch)


INTERPRETED = isinstance(forward_kernel, InterpretedFunction)  # TRITON_INTERPRET=1: Python on CPU tensors, for tests
