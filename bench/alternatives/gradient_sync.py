"""The own all-reduce of gradients against DistributedDataParallel, on two gloo ranks of this machine.

    OMP_NUM_THREADS=1 python bench/alternatives/gradient_sync.py

Both take the same network and batch through forward, backward and all-reduce, in turns. DistributedDataParallel with
``find_unused_parameters`` keeps its buckets, as a bit-identical resume on three or more ranks needs. Without it, it
rebuilds them after the first step. A row is valid if all gradients agree.
"""

import copy
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))  # the modules of all benches
sys.path.insert(0, str(ROOT / "tests" / "support" / "runs"))

from harness import Check, Report, Row, Timing, arguments, this_machine, time_in_turns
from several_ranks import on_ranks

from fastcpc import distributed
from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.distributed.gradient_sync import GradientSync
from fastcpc.models.build import build_network

CASES = ((16, 32, 3), (64, 8, 1))  # width of a PreAct ResNet-18, batch per rank, steps per timed call
OWN, KEPT, REBUILT = "own all-reduce", "DDP, unused parameters", "DDP, rebuilt buckets"
TOLERANCE = 1e-5  # of the largest gradient: the sums run in another order


class Step:
    """Forward, backward and all-reduce of one network. ``gradients`` has the result of the last step."""

    def __init__(self, network: nn.Module, images_BCHW: Tensor, labels_B: Tensor, kind: str) -> None:
        self.network = copy.deepcopy(network)
        self.batch = images_BCHW, labels_B
        self.called: nn.Module = self.network
        self.finish = lambda: None
        if kind == OWN:
            self.finish = GradientSync(list(self.network.parameters())).finish
        else:
            self.called = DistributedDataParallel(
                self.network,
                process_group=distributed.process_group.data_group(),
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=kind == KEPT,
            )

    def run(self, steps: int) -> None:
        """Take this many steps."""
        images_BCHW, labels_B = self.batch
        for _ in range(steps):
            self.network.zero_grad(set_to_none=True)
            F.cross_entropy(self.called(images_BCHW), labels_B).backward()
            self.finish()

    def gradients(self) -> Tensor:
        """All gradients in one vector."""
        return torch.cat([p.grad.reshape(-1) for p in self.network.parameters() if p.grad is not None])


class Classifier(nn.Module):
    """The backbone and classifier of a network: what a training step differentiates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        model = ModelConfig(name="preact_resnet18", width=width)
        network = build_network(
            model, CpcConfig(embedding_dim=32), num_classes=10, in_channels=3, image_size=32, seed=1
        )
        self.backbone, self.classifier = network.backbone, network.classifier

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.classifier(self.backbone(images_BCHW))
        return logits


def measure_on_rank(file: str, width: str, batch: str, steps: str, repeats: str) -> None:
    """Time one case; rank 0 writes the result to a file."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)
    draws = torch.Generator().manual_seed(distributed.rank())
    images_BCHW = torch.randn(int(batch), 3, 32, 32, generator=draws).to(memory_format=torch.channels_last)
    labels_B = torch.randint(10, (int(batch),), generator=draws)
    network = Classifier(int(width)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kinds = {kind: Step(network, images_BCHW, labels_B, kind) for kind in (OWN, KEPT, REBUILT)}
    calls: Any = {kind: lambda step=step: step.run(int(steps)) for kind, step in kinds.items()}
    timings = time_in_turns(calls, int(repeats), "cpu", warmup=2)
    own = kinds[OWN].gradients()
    apart = max(float((own - step.gradients()).abs().max() / own.abs().max()) for step in kinds.values())
    if distributed.rank() == 0:
        content = {"apart": apart, "parameters": own.numel(), "seconds": {k: vars(t) for k, t in timings.items()}}
        Path(file).write_text(json.dumps(content))


def main() -> int:
    """Run the bench."""
    options = arguments(__doc__ or "").parse_args()
    report = Report("gradient_sync", this_machine("cpu"), options.results)
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))  # the ranks import this module by name
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    for width, batch, steps in CASES:
        with TemporaryDirectory(prefix="fastcpc-gradients-") as name:
            file = Path(name) / "result.json"
            on_ranks(2, "gradient_sync:measure_on_rank", file, width, batch, steps, options.repeats or 15)
            result = json.loads(file.read_text())
        check = Check("gradients differ by", result["apart"], TOLERANCE)
        timings = {kind: Timing(**seconds) for kind, seconds in result["seconds"].items()}
        labels = {"ranks": 2, "width": width, "batch": batch, "steps": steps, "parameters": result["parameters"]}
        report.add(Row(labels, check, OWN, timings))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
