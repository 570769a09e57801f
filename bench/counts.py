"""Operations, bytes and FLOPs of an epoch on a GPU by stage, counted on any machine, and their time on an H200.

The stages are those of the paper's CIFAR-10 config, uncompiled, with made-up images. A pretended GPU executes them
(tests/support/devices/counting_gpu.py): tensors of the real sizes without values. Rows are per unit: a step, a batch.
Times take the rates that the project measured on an H200: 4.3 TB/s for copies and 790 TFLOP/s for bf16 products. They
are floors. An unfused operation is taken to move its inputs and outputs once, and launches are taken to cost nothing.
Mixtures and the host's work are not counted. ``--compiled`` also counts what a compiled step launches, as inductor
plans it for an H200 (tests/support/devices/compiled_gpu.py). Writes results/counts.json.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / "support" / "devices"), str(ROOT / "bench" / "speed")]
from compiled_gpu import count_launches
from counting_gpu import CountingGpu, Counts, values_of
from harness import arguments
from pretend_gpu import OnGpu, pretended_gpu
from torch import Tensor
from trainers import cifar_config, made_up_cifar

from fastcpc.cleaner.on_device import head_graphs
from fastcpc.cleaner.partition import Partition
from fastcpc.cleaner.prototypes import prototype_clean_prob, train_prototypes
from fastcpc.config.schema import Config
from fastcpc.data.augment import fused_check
from fastcpc.data.loaders.base import Batch
from fastcpc.data.loaders.factory import make_loader
from fastcpc.data.sampler import sequential_batches
from fastcpc.engine.evaluate import evaluate
from fastcpc.engine.learner import Learner
from fastcpc.engine.numerics import resolve_numerics
from fastcpc.engine.scoring import score_samples
from fastcpc.engine.step_loop import StepLoop
from fastcpc.engine.train_epoch import GUESS_BATCH, TrainContext, semi_supervised
from fastcpc.kernels import prototype_triton
from fastcpc.kernels.views import launch
from fastcpc.models.build import build_network
from fastcpc.models.folding import fold_batchnorm
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm
from fastcpc.semisup.fixed_guesses import fixed_logits
from fastcpc.semisup.mixmatch import semisup_loss
from fastcpc.semisup.mixup import Partners

BYTES_A_SECOND, FLOPS_A_SECOND = 4.3e12, 790e12  # measured on an H200
TRAIN, TEST, LABELLED = 50_000, 10_000, 27_000  # labelled: of 50 % symmetric noise, measured by DivideMix's cleaner
STEPS, BATCHES, EPOCH = 8, 2, 20  # that are executed; the rest of an epoch is as these
KERNELS = ("forward_kernel", "backward_kernel", "scores_kernel")


@dataclass(frozen=True)
class Stage:
    """units: of an epoch with both networks. one: the counts of a unit, the mean of those executed."""

    name: str
    units: int
    one: Counts

    @property
    def seconds(self) -> float:
        """Of an epoch, on an H200: the longer one of moving and computing."""
        moving, computing = self.one.num_bytes / BYTES_A_SECOND, self.one.flops / FLOPS_A_SECOND
        return self.units * float(max(moving, computing))


class CountedSteps(StepLoop):
    """Steps that are counted: the batch's views, and what the step makes of them."""

    def __init__(self, gpu: CountingGpu, views: str, step: str) -> None:
        """views, step: names of the two stages."""
        self.gpu, self.views, self.step = gpu, views, step

    def train_steps(
        self, title: str, batches: Iterator[Batch], total: int, *, num_views: int
    ) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) from step 0 on."""
        return enumerate(self.counted(batches))

    def counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; what is done between two of them is counted."""
        while True:
            with self.gpu.stage(self.views):
                batch = next(batches, None)
            if batch is None:
                return
            with self.gpu.stage(self.step):
                yield batch


class CountedKernel:
    """A Triton kernel that counts its launches and writes nothing."""

    def __init__(self, gpu: CountingGpu) -> None:
        self.gpu = gpu

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            self.gpu.launched(*(argument for argument in arguments if isinstance(argument, OnGpu)))

        return launch


class CountedViews(CountedKernel):
    """The view kernel: it reads the images of the batch and writes the views. Its scratch buffer stays in the cache."""

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(pixels: Tensor, index: Tensor, plan: Tensor, *others: Any, **options: Any) -> None:
            out = next(other for other in reversed(others) if isinstance(other, OnGpu))
            self.gpu.launched(index, plan, out, torch.empty(out.shape, dtype=pixels.dtype, device="meta"))

        return launch


def count(config: Config, num_train: int = TRAIN, num_test: int = TEST, labelled: int = LABELLED) -> list[Stage]:
    """The stages of an epoch of both networks."""
    gpu = CountingGpu()
    kernels: Any = {name: CountedKernel(gpu) for name in KERNELS}
    with (
        pretended_gpu(gpu),
        patch.multiple(prototype_triton, **kernels),
        patch.dict(prototype_triton._ticket_store, clear=True),  # as in a new process, whatever ran before
        patch.object(fused_check, "kernel_problem", lambda *_: ""),
        patch.object(launch, "view_kernel", CountedViews(gpu)),
        patch.object(head_graphs, "difference", lambda *_: ""),  # replays are counted and change nothing
    ):
        numerics = resolve_numerics(config)
        score_batch = numerics.score_batch
        num_images = max(8 * config.train.batch_size, BATCHES * score_batch)
        dataset = made_up_cifar(num_images, BATCHES * score_batch)
        device = numerics.device
        sizes = {"num_classes": dataset.num_classes, "in_channels": 3, "image_size": 32}
        own, other = (Learner(n, config, numerics, **sizes, num_samples=num_train) for n in (1, 2))
        gpu.weights = values_of(own.network) | values_of(other.network)
        labels_N = torch.zeros(len(dataset.train.labels), dtype=torch.int64).to(device)
        loader = make_loader(dataset.train, dataset, config.data, config.augment, device)
        training = TrainContext(config, numerics, loader, labels_N, dataset.num_classes)
        clean_N = torch.arange(len(labels_N)).to(device) % 2 == 0
        own.partition = Partition(clean_N, clean_N.float())
        semi_supervised(own, other, training, CountedSteps(gpu, "views", "step"), epoch=EPOCH, start=0)
        batches = sequential_batches(BATCHES * score_batch, score_batch)
        networks = (own.network, other.network)
        for name, function in (("score", score_samples), ("evaluate", evaluate)):
            steps = CountedSteps(gpu, f"{name} views", name)
            function(networks, steps.counted(loader.stream(batches, ("test",), 0)), labels_N, numerics)
        feat_ND = torch.zeros(num_train, own.network.feature_dim, dtype=numerics.dtype).to(device)
        prototypes(gpu, own, feat_ND, config)
    score, test = -(-num_train // score_batch), -(-num_test // score_batch)
    steps_of_both = 2 * -(-labelled // config.train.batch_size)
    units = {
        "score views": (score, BATCHES), "score": (score, BATCHES), "prototype pass": (2, 1),
        "prototype scores": (2, 1), "views": (steps_of_both, STEPS), "step": (steps_of_both, STEPS),
        "evaluate views": (test, BATCHES), "evaluate": (test, BATCHES),
    }  # fmt: skip
    return [Stage(name, number, mean(gpu.stages[name], done)) for name, (number, done) in units.items()]


def prototypes(gpu: CountingGpu, own: Learner, feat_ND: torch.Tensor, config: Config) -> None:
    """Passes of the prototypes over all kept features, and the scores: the first pass of a run and the third.

    The second pass also captures graphs and compares them.
    """
    labels_N = torch.zeros(len(feat_ND), dtype=torch.int64).to(feat_ND.device)
    clean_N = labels_N == 0
    for name in ("first prototype pass", "capture of graphs", "prototype pass"):
        with gpu.stage(name):
            train_prototypes(
                own.network, own.cpc_optimizer, feat_ND, labels_N, clean_N, labels_N, replace(config.cpc, passes=1),
                alpha=1.0, batch_size=config.train.batch_size, seed=3,
            )  # fmt: skip
    with gpu.stage("prototype scores"):
        prototype_clean_prob(own.network, feat_ND, labels_N)


def compiled_launches(config: Config, *, image_size: int = 32, in_channels: int = 3) -> dict[str, Counter[str]]:
    """Kernels and library calls of a compiled step, and of the fixed network's guesses for several steps."""
    sizes = {"num_classes": 10, "in_channels": in_channels, "image_size": image_size}
    own, other = (build_network(config.model, config.cpc, **sizes, seed=seed) for seed in (1, 2))
    apply_ghost_batchnorm(own.train())
    folded = fold_batchnorm(other.eval(), torch.bfloat16) or other
    for network in (own, folded):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = config.train.batch_size

    def images(number: int) -> Tensor:
        return torch.zeros(number, in_channels, image_size, image_size).contiguous(memory_format=torch.channels_last)

    pair, partners = (images(2 * size),) * 2, Partners(torch.arange(4 * size))
    with torch.autocast("cpu", torch.bfloat16):
        step = count_launches(
            semisup_loss, own, torch.zeros(2 * size, 10, dtype=torch.bfloat16), pair, pair,
            torch.zeros(size, dtype=torch.int64), torch.zeros(size), torch.tensor(0.7), partners, torch.tensor(1.0),
            config.semisup, 10,
        )  # fmt: skip
        with torch.no_grad():
            guesses = count_launches(fixed_logits, folded, images(GUESS_BATCH))
    return {"step": step, "guesses": guesses}


def mean(total: Counts, number: int) -> Counts:
    """The counts of one unit of so many."""
    return Counts(**{name: round(part / number) for name, part in asdict(total).items()})


def counted_config(settings: list[str]) -> Config:
    """The paper's CIFAR-10 config on a GPU, with 50 % symmetric noise."""
    given = ["device=cuda", "precision=bf16", "compile=false", "noise.kind=sym", "noise.rate=0.5", "data.root=made-up"]
    return cifar_config([*given, "semisup.lambda_u=25", f"semisup.batches_per_epoch={STEPS}", *settings])


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument("--compiled", action="store_true", help="also count a compiled step (a minute)")
    parser.add_argument("settings", nargs="*", help="further key=value settings")
    options = parser.parse_intermixed_args()
    config = counted_config(options.settings)
    stages = count(config)
    print("per unit: operations, GB moved without fusion, GFLOP; per epoch: seconds at 4.3 TB/s and at 790 TFLOP/s")
    print(f"{'stage':<18}{'units':>7}{'operations':>12}{'GB':>10}{'GFLOP':>10}{'moving s':>10}{'FLOPs s':>10}")
    for stage in stages:
        one = stage.one
        moving, computing = (
            stage.units * part for part in (one.num_bytes / BYTES_A_SECOND, one.flops / FLOPS_A_SECOND)
        )
        numbers = f"{one.num_bytes / 1e9:>10.4f}{one.flops / 1e9:>10.1f}{moving:>10.3f}{computing:>10.3f}"
        print(f"{stage.name:<18}{stage.units:>7}{one.operations:>12}{numbers}")
    operations = sum(stage.units * stage.one.operations for stage in stages)
    flops = sum(stage.units * stage.one.flops for stage in stages)
    floor = sum(stage.seconds for stage in stages)
    print(f"an epoch: {operations:,} operations, {flops / 1e15:.2f} PFLOP, {floor:.2f} s at the rates of an H200")
    compiled: dict[str, Any] = {}
    if options.compiled:
        launches = compiled_launches(config)
        step, guesses = (launches[part].total() for part in ("step", "guesses"))
        ahead = GUESS_BATCH // (2 * config.train.batch_size)
        print(f"compiled: {step} launches a step and {guesses} per {ahead} steps, {step + guesses / ahead:.0f} a step")
        compiled = {"compiled": {"steps_ahead": ahead, **launches}}
    path = options.results / "counts.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(stage) | {"seconds": round(stage.seconds, 4)} for stage in stages]
    about = {"settings": options.settings, "labelled": LABELLED, "torch": torch.__version__}
    total = {"operations": operations, "flops": flops, "seconds": round(floor, 3)}
    path.write_text(json.dumps(about | {"stages": rows, "epoch": total} | compiled, indent=1) + "\n", encoding="ascii")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
