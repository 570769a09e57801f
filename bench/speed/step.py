"""The semi-supervised step of one network: eager against compiled, its parts, its share of the peak.

Uses made-up images of CIFAR's size in memory, with the paper's settings for CIFAR-10: two weak views for guessing, two
strong views for training. Row "step" is a stretch of steps with its loader, eager and compiled. Seconds of compilation
are listed separately. Its check: the mean loss of the stretch is the same. Row "parts" splits an eager step into
loader, guessed targets, forward pass with the losses, backward pass and optimiser. A ratio is a part's share of the
step. torch counts the FLOPs from the operations of a step. The peak is that of a matrix product in the same dtype,
measured here.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from trainers import cifar_config, made_up_cifar, scratch, trainer_of

from fastcpc.cleaner.partition import partition_samples
from fastcpc.config.schema import Config
from fastcpc.data.loaders.base import Batch, ViewName
from fastcpc.engine.step_loop import StepLoop
from fastcpc.engine.train_epoch import draw_partners, paired_batches, semi_supervised
from fastcpc.engine.trainer import Trainer
from fastcpc.semisup.fixed_guesses import fixed_logits
from fastcpc.semisup.mixmatch import guess_targets, semisup_loss

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from gpu_timing import kernels_of
from harness import Check, Report, Row, Timing, arguments, this_machine, time_in_turns

EPOCH = 20  # past the warm-up, before the rate drops
VIEWS: tuple[ViewName, ...] = ("weak", "weak", "strong", "strong")
LOSS_LIMIT = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-2}
MATRIX = {"cpu": 1024, "cuda": 8192}


def our_config(options: Any, folder: Any, compiled: str) -> Config:
    """The paper's settings with other sizes."""
    return cifar_config(
        [
            "data.root=made-up", f"run.dir={folder}", f"model.width={options.width}", f"device={options.device}",
            f"train.batch_size={options.batch}", f"precision={options.precision}", f"compile={compiled}",
            f"cpc.embedding_dim={min(128, 4 * options.width)}", f"semisup.batches_per_epoch={options.steps}",
            "noise.kind=sym", "noise.rate=0.5", "semisup.lambda_u=25",
        ]
    )  # fmt: skip


class Stretch:
    """A number of steps of network 1, which can be repeated."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.own, self.other = trainer.learners
        num_samples = trainer.training.loader.num_samples
        clean_prob_N = torch.linspace(0, 1, num_samples)[torch.randperm(num_samples, generator=torch.Generator())]
        self.own.partition = partition_samples(clean_prob_N.to(trainer.numerics.device), 0.5)

    def __call__(self) -> int:
        """Run them and return their number."""
        self.own.steps = []
        self.own.sums.zero_()
        return semi_supervised(self.own, self.other, self.trainer.training, BareSteps(), epoch=EPOCH, start=0)


class BareSteps(StepLoop):
    """Steps without progress, timing or stops."""

    def __init__(self) -> None:
        """Needs no state."""

    def train_steps(
        self, title: str, batches: Iterator[Batch], total: int, *, num_views: int
    ) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) from step 0 on."""
        return enumerate(batches)


def step_row(options: Any) -> Row:
    """Eager against compiled."""
    with ExitStack() as stack:
        dataset = made_up_cifar(4 * options.batch * options.steps, 256)
        stretches = {}
        for name, how in (("eager", "false"), ("compiled", options.compile)):
            config = our_config(options, stack.enter_context(scratch()), how)
            stretches[name] = Stretch(stack.enter_context(trainer_of(config, dataset)))
        losses, compile_seconds = {}, 0.0
        for name, stretch in stretches.items():
            begin = time.perf_counter()
            steps = stretch()
            compile_seconds = time.perf_counter() - begin
            losses[name] = float(stretch.own.sums[0]) / steps
        numerics = stretches["eager"].trainer.numerics
        timings = time_in_turns(stretches, options.repeats or 5, options.device)
        apart = abs(losses["compiled"] - losses["eager"]) / abs(losses["eager"])
        flops, peak = flops_of(stretches["eager"]) * options.steps, matmul_peak(options.device, numerics.dtype)
        notes: dict[str, Any] = {
            "compile_seconds": round(compile_seconds - timings["compiled"].median, 1),
            "gflop_a_step": round(flops / options.steps / 1e9, 2),
            "share_of_matmul_peak": round(flops / timings["compiled"].median / peak, 4),
        }
        if options.device == "cuda":
            images = 4 * options.batch * options.steps
            notes["images_per_second"] = round(images / timings["compiled"].median)
            notes["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            notes["launches_a_step"] = round(kernels_of(stretches["compiled"])[0] / options.steps, 1)
        return Row(
            labels_of("step", options, numerics.dtype), Check("loss apart", apart, LOSS_LIMIT[numerics.dtype]),
            "compiled", timings, notes=notes,
        )  # fmt: skip


def parts_row(options: Any) -> Row:
    """The parts of an eager step."""
    with scratch() as folder, trainer_of(our_config(options, folder, "false"), made_up_cifar(8192, 256)) as trainer:
        stretch = Stretch(trainer)
        training, numerics, config = trainer.training, trainer.numerics, trainer.config
        own, other, partition = stretch.own, stretch.other, stretch.own.partition
        assert partition is not None
        batches = paired_batches(own, training, EPOCH)
        (batch,) = training.loader.stream(batches[:1], VIEWS, 1)
        labelled = batch.index[: options.batch]
        partners = draw_partners(config, torch.Generator().manual_seed(1), numerics.device)
        constants = [torch.tensor(value).to(numerics.device) for value in (0.7, 1.0)]
        views, kept = (batch.views[0], batch.views[1]), dict[str, Any]()
        own.network.train()
        unlabelled = torch.cat([view[options.batch :] for view in views])

        def others() -> torch.Tensor:
            with torch.no_grad():
                return fixed_logits(other.network.eval(), unlabelled)

        def guess() -> None:
            with numerics.autocast():
                guess_targets(own.network, others(), views, training.labels_N[labelled],
                              partition.clean_prob_N[labelled], 0.5, training.num_classes)  # fmt: skip

        def forward() -> None:
            with numerics.autocast():
                kept["loss"] = semisup_loss(
                    own.network, others(), views, (batch.views[2], batch.views[3]),
                    training.labels_N[labelled], partition.clean_prob_N[labelled], constants[0], partners,
                    constants[1], config.semisup, training.num_classes,
                ).total  # fmt: skip

        parts: dict[str, Callable[[], Any]] = {
            "loader": lambda: list(training.loader.stream(batches[:1], VIEWS, 1)),
            "guesses": guess,
            "guesses, forward, losses": forward,
            "backward": lambda: kept.pop("loss").backward(),
            "optimiser": own.optimizer.step,
        }
        timings = time_in_turns(parts, options.repeats or 20, options.device)
        whole = sum(timing.median for name, timing in timings.items() if name != "guesses")
        finite = sum(not bool(p.isfinite().all()) for p in own.network.parameters())
        total = Timing(whole, whole, whole, timings["loader"].n)
        labels = labels_of("parts", options, numerics.dtype)
        return Row(labels, Check("not finite", float(finite), 0.0), "step", {"step": total, **timings})


def labels_of(row: str, options: Any, dtype: torch.dtype) -> dict[str, Any]:
    """The labels of a row: what its figures were measured on."""
    return {
        "row": row, "network": f"preact_resnet18 width {options.width}", "batch": options.batch,
        "precision": str(dtype).removeprefix("torch."),
    }  # fmt: skip


def flops_of(stretch: Stretch) -> int:
    """Operations of one step; a multiplication and an addition count as two."""
    with FlopCounterMode(display=False) as counter:
        steps = stretch()
    return int(counter.get_total_flops() / steps)


def matmul_peak(device: str, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product in this dtype, the best of 10."""
    size = MATRIX[device]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = time_in_turns({"matmul": lambda: a @ b}, 10, device)["matmul"]
    return 2 * size**3 / timing.low


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    small = not torch.cuda.is_available()
    parser.add_argument("--width", type=int, default=16 if small else 64, help="of PreAct ResNet-18")
    parser.add_argument("--batch", type=int, default=32 if small else 128, help="labelled samples a step")
    parser.add_argument("--steps", type=int, default=4 if small else 50, help="steps of a stretch")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    parser.add_argument("--compile", choices=("default", "graphs", "max-autotune"), default="default")
    options = parser.parse_args()
    report = Report("step", this_machine(options.device), options.results)
    report.add(step_row(options))
    report.add(parts_row(options))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
