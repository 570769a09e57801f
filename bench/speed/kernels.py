"""prototype_loss (loss, both gradients), prototype_scores and views against plain PyTorch; kernel resources.

"plain" is the usual loss in PyTorch: logits in the input's dtype, one-hot labels, autograd. On a GPU the rows compare
plain, plain under torch.compile, and the Triton kernel ("fastcpc"). On a CPU they compare plain and fastcpc's
plain-PyTorch form. On a GPU inputs take turns, so that they are not in its cache. The check of a row compares loss and
both gradients with float64. The error is at most twice plain's error plus the rounding error of the result. The column
shows the worst error as a share of that limit. The floor (H200 only) is the longer of two times. One moves inputs and
outputs once at 4.3 TB/s. The other takes 6 B K d operations at 790 TFLOP/s. The project measured both rates.

The rows of views have the drawing of the random numbers on the host, too. Their check is the one that the loader makes
before it uses the kernel. On a CPU both columns are the operations of torch.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.augment import fused_check
from fastcpc.data.augment.batched import Cropper, StrongAugmenter
from fastcpc.data.augment.batched_views import BatchedViews
from fastcpc.data.augment.fused import FusedViews
from fastcpc.data.augment.normalize import TensorNormaliser
from fastcpc.data.augment.policies import WeakPolicy, strong_policy
from fastcpc.data.rng import generator
from fastcpc.kernels import prototype_loss, prototype_scores

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from gpu_timing import copies, in_turns
from harness import Check, Report, Row, arguments, this_machine, time_in_turns
from offline_compile import (
    ARCHITECTURES,
    Resources,
    compile_offline,
    compile_view_offline,
    configurations,
    view_configurations,
)

DIM = 128
CPU_SHAPES = tuple((b, k, "float32") for b, k in ((64, 10), (128, 100), (1024, 100), (8192, 100), (1024, 1000)))
GPU_SHAPES = tuple(product((1024, 8192, 65_536), (10, 100, 1000, 10_000), ("bfloat16",)))
TRUTH_ELEMENTS = 2**26  # B x K of the float64 form at a time: 0.5 GB per tensor
SCORES = {"cpu": ((50_000, 10), (200_000, 100)), "cuda": ((50_000, 10), (1_000_000, 14), (2_400_000, 1000))}
BYTES_A_SECOND, FLOPS = 4.3e12, 790e12  # H200
Sets = tuple[Tensor, Tensor, Tensor]


def make_batch(
    num_rows: int, num_classes: int, dtype: torch.dtype, device: str, seed: int = 0
) -> tuple[Tensor, Tensor, Sets]:
    """Embeddings, prototypes; labels, clean (half), pseudo-labels (a quarter)."""
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_rows, DIM, generator=random) / DIM**0.5
    prototypes = torch.randn(num_classes, DIM, generator=random)
    labels = torch.randint(0, num_classes, (num_rows,), generator=random)
    clean = torch.rand(num_rows, generator=random) < 0.5
    pseudo = labels.roll(1).masked_fill(clean | (torch.rand(num_rows, generator=random) < 0.5), -1)
    sets = (labels.to(device), clean.to(device), pseudo.to(device))
    return embeddings.to(device, dtype), prototypes.to(device, dtype), sets


def plain_loss(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, clean: Tensor, pseudo: Tensor, sizes: Tensor | None = None
) -> Tensor:
    """Eqs. 2-5 in the usual PyTorch form. sizes: (3,) |X|, |U| and |P|, if these rows are a part of a batch."""
    num_classes = prototypes.shape[0]
    logits = (embeddings @ prototypes.T).to(torch.promote_types(embeddings.dtype, torch.float32))
    target = one_hot(labels, num_classes).to(logits.dtype)
    in_p = pseudo >= 0
    pseudo_target = one_hot(pseudo.clamp(min=0), num_classes).to(logits.dtype)
    given = (logits * target).sum(1)
    negatives = (logsigmoid(-logits) * (1 - target)).sum(1)
    sum_x = torch.where(clean, logsigmoid(given) + negatives / num_classes, 0.0).sum()
    sum_u = torch.where(clean, 0.0, logsigmoid(-given)).sum()
    sum_p = torch.where(in_p, logsigmoid((logits * pseudo_target).sum(1)), 0.0).sum()
    num_x, num_u, num_p = (clean.sum(), (~clean).sum(), in_p.sum()) if sizes is None else sizes
    return -(sum_x / num_x.clamp(min=1) + sum_u / num_u.clamp(min=1) + sum_p / num_p.clamp(min=1))


def differentiate(loss: Callable[..., Tensor], embeddings: Tensor, prototypes: Tensor, sets: Sets) -> list[Tensor]:
    """Loss and both gradients."""
    inputs = [tensor.detach().requires_grad_() for tensor in (embeddings, prototypes)]
    value = loss(*inputs, *sets)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def in_float64(embeddings: Tensor, prototypes: Tensor, sets: Sets) -> list[Tensor]:
    """Loss and both gradients of plain_loss in float64, by parts of the rows that fit in memory."""
    labels, clean, pseudo = sets
    sizes = torch.stack([clean.sum(), (~clean).sum(), (pseudo >= 0).sum()])
    num_rows, parts = max(TRUTH_ELEMENTS // len(prototypes), 1), []

    def part(v: Tensor, c: Tensor, labels: Tensor, clean: Tensor, pseudo: Tensor) -> Tensor:
        return plain_loss(v, c, labels, clean, pseudo, sizes)

    for first in range(0, len(embeddings), num_rows):
        rows = slice(first, first + num_rows)
        own = (labels[rows], clean[rows], pseudo[rows])
        parts.append(differentiate(part, embeddings[rows].double(), prototypes.double(), own))
    losses, of_embeddings, of_prototypes = zip(*parts, strict=True)
    return [torch.stack(losses).sum(), torch.cat(of_embeddings), torch.stack(of_prototypes).sum(0)]


def check_loss(loss: Callable[..., Tensor], embeddings: Tensor, prototypes: Tensor, sets: Sets) -> Check:
    """The worst error of loss and gradients as a share of its limit."""
    truth = in_float64(embeddings, prototypes, sets)
    ours = differentiate(loss, embeddings, prototypes, sets)
    theirs = differentiate(plain_loss, embeddings, prototypes, sets)
    worst = 0.0
    for own, other, true in zip(ours, theirs, truth, strict=True):
        rounding = 0.5 * torch.finfo(own.dtype).eps + 4 * torch.finfo(torch.float32).eps
        limit = 2 * float((other - true).abs().max()) + rounding * float(true.abs().max())
        worst = max(worst, float((own - true).abs().max()) / limit)
    return Check("error / limit", worst, 1.0)


def loss_row(num_rows: int, num_classes: int, dtype: str, device: str, repeats: int) -> Row:
    """Loss and both gradients of one shape."""
    embeddings, prototypes, sets = make_batch(num_rows, num_classes, getattr(torch, dtype), device)
    losses: dict[str, Callable[..., Tensor]] = {"fastcpc": prototype_loss, "plain": plain_loss}
    if device == "cuda":
        torch.compiler.reset()  # otherwise earlier shapes count towards the limit of recompilations
        losses["compiled"] = torch.compile(plain_loss, fullgraph=True, dynamic=False)
    check = check_loss(prototype_loss, embeddings, prototypes, sets)
    count = copies(embeddings.nbytes + prototypes.nbytes + 17 * num_rows, device)
    inputs = [make_batch(num_rows, num_classes, embeddings.dtype, device, seed) for seed in range(count)]
    calls = {name: in_turns(partial(differentiate, loss), inputs) for name, loss in losses.items()}
    timings = time_in_turns(calls, repeats, device, warmup=3) if check.passed else {}
    labels = {"op": "loss+grads", "B": num_rows, "K": num_classes, "d": DIM, "dtype": dtype}
    return Row(labels, check, "fastcpc", timings, floor(num_rows, num_classes, device))


def floor(num_rows: int, num_classes: int, device: str) -> float | None:
    """Minimum seconds of loss and gradients on an H200 in bfloat16; None elsewhere."""
    if device != "cuda" or "H200" not in torch.cuda.get_device_name():
        return None
    moved = 4 * num_rows * DIM + 6 * num_classes * DIM + 17 * num_rows
    return max(moved / BYTES_A_SECOND, 6 * num_rows * num_classes * DIM / FLOPS)


def scores_row(num_rows: int, num_classes: int, device: str, repeats: int) -> Row:
    """Scores for the stored features of a whole data set in one call."""
    embeddings, prototypes, (labels, _, _) = make_batch(num_rows, num_classes, torch.float32, device)

    def plain(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
        return torch.sigmoid((embeddings * prototypes[labels]).sum(1))

    truth = torch.sigmoid((embeddings.double() * prototypes.double()[labels]).sum(1))
    error = float((prototype_scores(embeddings, prototypes, labels) - truth).abs().max())
    check = Check("error", error, 1e-6)
    rows = copies(embeddings.nbytes + prototypes.nbytes + labels.nbytes, device)
    inputs = [
        (embeddings, prototypes, labels),
        *((embeddings.clone(), prototypes, labels.clone()) for _ in range(1, rows)),
    ]
    calls = {"fastcpc": in_turns(prototype_scores, inputs), "plain": in_turns(plain, inputs)}
    timings = time_in_turns(calls, repeats, device, warmup=3) if check.passed else {}
    labels_of_row = {"op": "scores", "B": num_rows, "K": num_classes, "d": DIM, "dtype": "float32"}
    return Row(labels_of_row, check, "fastcpc", timings)


def views_row(view: str, num_images: int, device: str, repeats: int) -> Row:
    """Views of CIFAR's images from the index on the host: one kernel, and the operations of torch."""
    weak, strong, place = WeakPolicy(flip=True, padding=4), strong_policy(AugmentConfig()), torch.device(device)
    pixels = fused_check.example_images(3, 32).repeat(512, 1, 1, 1).to(place)
    parts = (
        pixels, Cropper(weak, 32, place), StrongAugmenter(strong, 32, place),
        TensorNormaliser((0.5,) * 3, (0.25,) * 3, place),
    )  # fmt: skip
    problem = fused_check.difference(3, 32, weak, strong, place) if device == "cuda" else ""
    if problem:
        print(problem)
    check = Check("views that differ", float(bool(problem)), 0.0)
    index = torch.randint(len(pixels), (num_images,), generator=generator(1))
    makers = {"fastcpc": (FusedViews if device == "cuda" else BatchedViews)(*parts), "plain": BatchedViews(*parts)}
    calls = {
        name: partial(lambda make: make.make(index, (view,), num_images, None, generator(2)), maker)
        for name, maker in makers.items()
    }
    timings = time_in_turns(calls, repeats, device, warmup=3) if check.passed else {}
    return Row({"op": f"{view} view", "B": num_images, "side": 32, "dtype": "float32"}, check, "fastcpc", timings)


def resources(architectures: list[int]) -> Iterator[dict[str, Any]]:
    """Registers, spills and shared memory of every configuration of the Triton kernels; compiled, not run."""
    print(f"{'compiled, not run':<48}  registers  spilled bytes  shared bytes")
    jobs: list[tuple[object, Callable[[], Resources]]] = []
    for architecture in architectures:
        jobs += [(c, partial(compile_offline, c)) for c in configurations(architecture)]
        jobs += [(c, partial(compile_view_offline, c)) for c in view_configurations(architecture)]
    for configuration, compile_it in jobs:
        taken = compile_it()
        print(f"{configuration!s:<48}  {taken.registers:>9}  {taken.spilled:>13}  {taken.shared:>12}", flush=True)
        yield {"configuration": str(configuration)} | asdict(taken)


def main() -> int:
    """Print the tables and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--architectures", type=int, nargs="*", choices=ARCHITECTURES, default=[90], help="to compile for"
    )
    parser.add_argument("--shapes", nargs="+", metavar="BxK", help="of loss and gradients, e.g. 65536x1000")
    parser.add_argument("--views", action="store_true", help="only the rows of views, into views.json")
    options = parser.parse_args()
    report = Report("views" if options.views else "kernels", this_machine(options.device), options.results)
    repeats = options.repeats or (100 if options.device == "cuda" else 20)
    if options.views:
        for view in ("weak", "strong"):
            report.add(views_row(view, 128, options.device, repeats))
        return report.finish()
    shapes = CPU_SHAPES if options.device == "cpu" else GPU_SHAPES
    if options.shapes:
        dtype = shapes[0][-1]
        shapes = tuple((int(b), int(k), dtype) for b, k in (text.split("x") for text in options.shapes))
    for shape in shapes:
        report.add(loss_row(*shape, options.device, repeats))
    for num_rows, num_classes in SCORES[options.device]:
        report.add(scores_row(num_rows, num_classes, options.device, repeats))
    report.extra["resources"] = list(resources(options.architectures))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
