"""The official DivideMix against fastcpc, with the same images, network, weights, labels and partition.

``--divide-mix`` is a checkout of the official repository and ``--data`` a folder with CIFAR-10. This repository stores
neither. Row "epoch" is one semi-supervised epoch of both networks on a given partition. It includes the peer's loaders,
as its own script runs it. Row "score" is the pass of both networks over all 50,000 images, with the mixture on the
losses. In its call "with prototypes" fastcpc also trains CPC's prototypes and scores with them. DivideMix has none.
``--precision`` sets the precision of fastcpc; the peer is float32. The check of "score": the posteriors of both scoring
passes agree (same weights, float32). The check of "epoch": both take the same number of labelled samples and end with
finite weights. The time of the first scoring pass includes compilation. Before the epochs each side has one untimed
turn.
"""

import copy
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from divide_mix import SIZE, DivideMix, write_cifar
from torch import nn
from trainers import cifar_config, trainer_of

from fastcpc.cleaner.partition import partition_samples
from fastcpc.config.schema import Config
from fastcpc.data.dataset import ArraySplit
from fastcpc.engine.cleaning import Cleaning, clean_labels
from fastcpc.engine.trainer import Trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/: the modules of all benches
from harness import Check, Report, Row, arguments, this_machine, time_in_turns

EPOCH = 20  # past the warm-up, before the rate drops
POSTERIOR_LIMIT = 0.02  # the peer starts its mixture by k-means with a random start, and stops early


def our_config(options: Any, folder: Path) -> Config:
    """CIFAR-10, sym 50, plain DivideMix views (two weak ones), batch 64: the peer's settings."""
    overrides = [
        f"data.root={options.data}", f"model.width={options.width}", f"run.dir={folder}", "cleaner.kind=gmm_agn",
        "augment.train=weak", "train.batch_size=64", "noise.kind=sym", "noise.rate=0.5",
        "semisup.lambda_u=25", f"precision={options.precision}", f"device={options.device}",
        f"compile={options.compile}", f"cpc.embedding_dim={min(128, 4 * options.width)}",
    ]  # fmt: skip
    return cifar_config(overrides)


def given_division(num_labelled: int) -> npt.NDArray[np.float64]:
    """Clean probabilities (50000,): 0.9 for ``num_labelled`` random samples, 0.1 for the others."""
    drawn = np.random.default_rng(0).permutation(SIZE)[:num_labelled]
    probability_N = np.full(SIZE, 0.1)
    probability_N[drawn] = 0.9
    return probability_N


class Ours:
    """The epoch and the scoring pass of fastcpc."""

    def __init__(self, trainer: Trainer, probability_N: npt.NDArray[np.float64]) -> None:
        self.trainer = trainer
        self.partition = partition_samples(torch.from_numpy(probability_N).float().to(trainer.numerics.device), 0.5)

    def epoch(self) -> None:
        """Train both networks, one after the other."""
        self.trainer.run_state.record = {"epoch": EPOCH, "images": 0, "seconds": {}}
        for learner in self.trainer.learners:
            learner.partition = self.partition
        for train in self.trainer.schedule.stages(EPOCH, guesses=True):
            self.trainer.run_state.step = 0
            self.trainer.record_passes(train())

    def score(self, kind: Literal["gmm_agn", "cpc_agn"]) -> Cleaning:
        """Score with both networks and run the cleaner of this kind on the scores."""
        config = replace(self.trainer.config, cleaner=replace(self.trainer.config.cleaner, kind=kind))
        learners, labels_N = self.trainer.learners, self.trainer.training.labels_N
        scoring = self.trainer.score(EPOCH)
        return clean_labels(learners, scoring, labels_N, config, num_classes=10, epoch=EPOCH)


def bench(options: Any, trainer: Trainer, peer: DivideMix) -> Iterator[Row]:
    """The requested rows. Scoring comes first, while both sides have the same weights."""
    device = trainer.numerics.device
    networks = [copy.deepcopy(learner.network) for learner in trainer.learners]
    for network in networks:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    ours = Ours(trainer, given_division(64 * options.steps))
    labels = {
        "width": options.width, "batch": 64, "precision": str(trainer.numerics.dtype).removeprefix("torch."),
        "compile": options.compile,
    }  # fmt: skip
    repeats = options.repeats or 3
    if "score" in options.rows:
        found: dict[str, Any] = {}
        calls: dict[str, Callable[[], Any]] = {
            "fastcpc": lambda: found.update(ours=ours.score("gmm_agn").clean_probs["gmm"]),
            "DivideMix": lambda: found.update(theirs=tuple(peer.score(network) for network in networks)),
            "with prototypes": lambda: ours.score("cpc_agn"),
        }
        timings = time_in_turns(calls, repeats, device.type, warmup=0)
        apart = float(np.abs(found["ours"][0].cpu().numpy() - found["theirs"][0]).mean())
        agree = Check("mean posterior apart", apart, POSTERIOR_LIMIT)
        yield Row({"row": "score", "images": SIZE} | labels, agree, "fastcpc", timings)
    if "epoch" in options.rows:
        optimizers = [
            torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4) for network in networks
        ]
        probability_N = ours.partition.clean_prob_N.double().cpu().numpy()
        calls = {"fastcpc": ours.epoch, "DivideMix": lambda: peer.train(networks, optimizers, probability_N)}
        timings = time_in_turns(calls, repeats, device.type, warmup=1)
        broken = sum(not_finite(network) for network in [*networks, *(m.network for m in trainer.learners)])
        unequal = abs(trainer.run_state.record["labelled"][0] - int((probability_N > 0.5).sum()))
        done = Check("unequal or not finite", float(broken + unequal), 0.0)
        yield Row({"row": "epoch", "images": 64 * options.steps} | labels, done, "fastcpc", timings)


def not_finite(network: nn.Module) -> int:
    """How many of its tensors hold a NaN or an inf."""
    return sum(not bool(tensor.isfinite().all()) for tensor in network.state_dict().values())


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument("--divide-mix", type=Path, required=True, help="checkout of the official DivideMix")
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10, in either layout")
    parser.add_argument("--width", type=int, default=16, help="of PreAct ResNet-18 (64 is the paper's)")
    parser.add_argument("--steps", type=int, default=40, help="labelled batches of the epoch, each network")
    parser.add_argument("--rows", nargs="+", choices=("score", "epoch"), default=["score", "epoch"])
    parser.add_argument("--precision", default="auto", help="of ours: auto, fp32 or bf16")
    parser.add_argument("--compile", default="default", help="of ours: false, default, graphs or max-autotune")
    options = parser.parse_args()
    report = Report("peer", this_machine(options.device), options.results)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastcpc-peer-")))
        trainer = stack.enter_context(trainer_of(our_config(options, folder / "run")))
        train = trainer.dataset.train
        assert isinstance(train, ArraySplit)
        write_cifar(folder, train.pixels.numpy(), train.labels.tolist(), trainer.labels.given.tolist())
        peer = DivideMix(options.divide_mix, folder, batch_size=64, num_classes=10, lambda_u=25)
        for row in bench(options, trainer, peer):
            report.add(row)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
