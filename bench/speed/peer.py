"""The official DivideMix against fastcpc, with the same images, network, weights, labels and partition.

``--divide-mix`` is a checkout of the official repository and ``--data`` a folder with CIFAR-10. This repository stores
neither. Results of a width other than 16 go to peer_WIDTH.json. Row "epoch" is one semi-supervised epoch of both
networks on a given partition. It includes the peer's loaders, as its own script runs it. Row "score" is the pass of
both networks over all 50,000 images, with the mixture on the losses. In its call "with prototypes" fastcpc also trains
CPC's prototypes and scores with them. DivideMix has none.
``--precision`` sets the precision of fastcpc; the peer is float32. ``--compile`` may name several modes of fastcpc; the
first one is the row's subject. ``--clock cpu`` measures CPU time with that of the peer's workers, for a busy machine:
give torch one thread and the bench one core.

Row "epoch" also times the peer with batches that its loaders have made before. On a CPU the bare convolutions of a step
(host/convolutions.py) are the row's floor: in format and precision of fastcpc, and in those of the peer. ``--without``
leaves calls out.

The check of "score": the posteriors of both scoring passes agree (same weights, float32). The check of "epoch": both
take the same number of labelled samples and end with finite weights. The time of the first scoring pass includes
compilation. Before the epochs each side has one untimed turn (``--warmup``).
"""

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH / "host")]  # the modules of all benches
from convolutions import FORMATS, StepConvolutions
from harness import Check, Report, Row, Timing, arguments, cpu_seconds, this_machine, time_in_turns

EPOCH = 20  # past the warm-up, before the rate drops
SUBJECT = "fastcpc"
CLOCKS = {"wall": time.perf_counter, "cpu": cpu_seconds}
POSTERIOR_LIMIT = 0.02  # the peer starts its mixture by k-means with a random start, and stops early

Networks = Sequence[nn.Module]
Labels = dict[str, Any]


def our_config(options: Any, folder: Path, compiled: str) -> Config:
    """CIFAR-10, sym 50, plain DivideMix views (two weak ones): the peer's settings."""
    overrides = [
        f"data.root={options.data}", f"train.batch_size={options.batch}", f"model.width={options.width}",
        f"run.dir={folder}", "cleaner.kind=gmm_agn",
        "augment.train=weak", "noise.kind=sym", "noise.rate=0.5",
        "semisup.lambda_u=25", f"precision={options.precision}", f"device={options.device}",
        f"compile={compiled}", f"cpc.embedding_dim={min(128, 4 * options.width)}",
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

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def take(self, probability_N: npt.NDArray[np.float64]) -> None:
        """Give both networks the partition of these clean probabilities, (50000,)."""
        for learner in self.trainer.learners:
            learner.partition = partition_samples(torch.from_numpy(probability_N).float().to(learner.device), 0.5)

    def epoch(self) -> None:
        """Train both networks, one after the other."""
        self.trainer.run_state.record = {"epoch": EPOCH, "images": 0, "seconds": {}}
        for train in self.trainer.schedule.stages(EPOCH, guesses=True):
            self.trainer.run_state.step = 0
            self.trainer.record_passes(train())

    def score(self, kind: Literal["gmm_agn", "cpc_agn"]) -> Cleaning:
        """Score with both networks and run the cleaner of this kind on the scores."""
        config = replace(self.trainer.config, cleaner=replace(self.trainer.config.cleaner, kind=kind))
        learners, labels_N = self.trainer.learners, self.trainer.training.labels_N
        scoring = self.trainer.score(EPOCH)
        return clean_labels(learners, scoring, labels_N, config, num_classes=10, epoch=EPOCH)


def bench(options: Any, trainers: Mapping[str, Trainer], peer: DivideMix) -> Iterator[Row]:
    """The requested rows. Scoring comes first, while all have the same weights. trainers: by mode of compilation."""
    first = next(iter(trainers.values()))
    networks = [copy.deepcopy(learner.network) for learner in first.learners]
    for network in networks:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    ours = {SUBJECT if trainer is first else f"compile={how}": Ours(trainer) for how, trainer in trainers.items()}
    labels = {
        "width": options.width, "batch": options.batch, "precision": str(first.numerics.dtype).removeprefix("torch."),
        "compile": options.compile[0], "clock": options.clock,
    }  # fmt: skip
    if "score" in options.rows:
        yield score_row(options, ours, networks, peer, labels)
    if "epoch" in options.rows:
        yield epoch_row(options, ours, networks, peer, labels)


def score_row(options: Any, ours: Mapping[str, Ours], networks: Networks, peer: DivideMix, labels: Labels) -> Row:
    """The scoring passes."""
    found: dict[str, Any] = {}
    calls: dict[str, Callable[[], Any]] = {
        SUBJECT: lambda: found.update(ours=ours[SUBJECT].score("gmm_agn").clean_probs["gmm"]),
        "DivideMix": lambda: found.update(theirs=tuple(peer.score(network) for network in networks)),
        "with prototypes": lambda: ours[SUBJECT].score("cpc_agn"),
    }
    timings = time_in_turns(calls, options.repeats or 3, options.device, warmup=0, clock=CLOCKS[options.clock])
    apart = float(np.abs(found["ours"][0].cpu().numpy() - found["theirs"][0]).mean())
    agree = Check("mean posterior apart", apart, POSTERIOR_LIMIT)
    return Row({"row": "score", "images": SIZE} | labels, agree, SUBJECT, timings)


def epoch_row(options: Any, ours: Mapping[str, Ours], networks: Networks, peer: DivideMix, labels: Labels) -> Row:
    """The training epochs, and on a CPU what bounds them."""
    our_type = ours[SUBJECT].trainer.numerics.dtype
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4) for network in networks
    ]
    probability_N = given_division(options.batch * options.steps)
    for side in ours.values():
        side.take(probability_N)
    calls: dict[str, Callable[[], Any]] = {name: side.epoch for name, side in ours.items()}
    calls["DivideMix"] = lambda: peer.train(networks, optimizers, probability_N)
    batches = peer.batches(probability_N)
    calls["DivideMix, batches at hand"] = lambda: peer.train(networks, optimizers, probability_N, batches)
    bare: dict[str, Callable[[], Any]] = {}
    if options.device == "cpu":
        types = {"channels_last": our_type, "contiguous": torch.float32}  # each side's format and type
        bare = {
            f"convolutions, {name}": StepConvolutions(networks[0], options.batch, form, types[name])
            for name, form in FORMATS.items()
        }
    chosen = {name: call for name, call in (calls | bare).items() if name not in options.without}
    timings = time_in_turns(
        chosen, options.repeats or 3, options.device, warmup=options.warmup, clock=CLOCKS[options.clock]
    )
    num_steps = len(networks) * options.steps
    timings |= {name: scaled(timings[name], num_steps) for name in bare if name in timings}
    learners = [learner for side in ours.values() for learner in side.trainer.learners]
    broken = sum(not_finite(network) for network in [*networks, *(learner.network for learner in learners)])
    wanted = int((probability_N > 0.5).sum())
    unequal = sum(abs(side.trainer.run_state.record["labelled"][0] - wanted) for side in ours.values())
    done = Check("unequal or not finite", float(broken + unequal), 0.0)
    floor = min((timings[name].median for name in bare if name in timings), default=None)
    return Row({"row": "epoch", "images": options.batch * options.steps} | labels, done, SUBJECT, timings, floor)


def scaled(timing: Timing, factor: int) -> Timing:
    """The timing of so many calls."""
    return Timing(timing.median * factor, timing.low * factor, timing.high * factor, timing.n)


def not_finite(network: nn.Module) -> int:
    """How many of its tensors hold a NaN or an inf."""
    return sum(not bool(tensor.isfinite().all()) for tensor in network.state_dict().values())


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument("--divide-mix", type=Path, required=True, help="checkout of the official DivideMix")
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10, in either layout")
    parser.add_argument("--width", type=int, default=16, help="of PreAct ResNet-18 (64 is the paper's)")
    parser.add_argument("--batch", type=int, default=64, help="labelled images of a step (64 is the peer's)")
    parser.add_argument("--steps", type=int, default=40, help="labelled batches of the epoch, each network")
    parser.add_argument("--rows", nargs="+", choices=("score", "epoch"), default=["score", "epoch"])
    parser.add_argument("--precision", default="auto", help="of ours: auto, fp32 or bf16")
    parser.add_argument(
        "--compile", nargs="+", default=["default"], help="of ours: false, default, graphs, max-autotune"
    )
    parser.add_argument("--warmup", type=int, default=1, help="untimed turns of row epoch")
    parser.add_argument("--without", nargs="+", default=[], metavar="CALL", help="calls of row epoch to leave out")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: CPU time, also of the workers")
    options = parser.parse_args()
    report = Report(
        "peer" if options.width == 16 else f"peer_{options.width}", this_machine(options.device), options.results
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastcpc-peer-")))
        trainers = {
            how: stack.enter_context(trainer_of(our_config(options, folder / how, how))) for how in options.compile
        }
        trainer = trainers[options.compile[0]]
        train = trainer.dataset.train
        assert isinstance(train, ArraySplit)
        write_cifar(folder, train.pixels.numpy(), train.labels.tolist(), trainer.labels.given.tolist())
        peer = DivideMix(options.divide_mix, folder, batch_size=options.batch, num_classes=10, lambda_u=25)
        for row in bench(options, trainers, peer):
            report.add(row)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
